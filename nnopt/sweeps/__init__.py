"""Sweeps: many points, their folders and their table."""
