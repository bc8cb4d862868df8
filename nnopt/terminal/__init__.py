"""Output on the terminal: progress bars, messages and curves."""
