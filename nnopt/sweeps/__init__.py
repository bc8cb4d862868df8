"""Sweeps: runs of many points, the folders of the points, and the table of their results."""
