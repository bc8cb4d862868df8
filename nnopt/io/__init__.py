"""Files: written atomically, locked, and opened within limits."""
