"""What is done about texts that may be an attack: asked alone, moderated."""
