"""Sweeps: points, their folders and their table."""
