"""Sweeps: running many points, each of which is one configuration, and the table of results."""
