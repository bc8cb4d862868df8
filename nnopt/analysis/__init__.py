"""Comparison of runs: settings, statistics and tables."""
