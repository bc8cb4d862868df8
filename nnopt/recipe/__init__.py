"""The run of one point, from its configuration to its files."""
