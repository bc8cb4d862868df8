"""One point, from its configuration to its files."""
