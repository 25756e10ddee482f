"""The chat transport: one batch as a prompt, one call of an endpoint, its reply as aligned answers."""
