"""Sweeps: running many points, and the table of results. A point is one configuration."""
