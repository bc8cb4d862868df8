"""Pruning: weights with low scores are set to zero, and stay zero in the rest of the training.

A pruning is a step of the training at which the masks of all prunable weights are computed again.
The scores and masks are computed in NumPy, so both backends get the same masks.
"""
