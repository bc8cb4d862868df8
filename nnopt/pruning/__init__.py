"""Pruning: weights with low scores stay zero, or units with low scores are removed.

A pruning takes place between two optimizer steps. It computes the masks of all prunable weights or
units. Scores and masks are computed in NumPy, so equal weights give equal masks in both backends.
"""
