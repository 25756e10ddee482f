"""What a model may see: pseudonyms, placeholders, scrubbed texts, and the marks that say where."""
