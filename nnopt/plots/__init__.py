"""Plots of runs and of sweeps."""
