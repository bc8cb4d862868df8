"""Sweeps: runs of many points (single configurations), and the table of the points' results."""
