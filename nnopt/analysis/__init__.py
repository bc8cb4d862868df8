"""Comparison of runs: groups of runs with equal settings, statistics, and tables."""
