"""Datasets: their files, the cache of decoded arrays, splits, batches and augmentation."""

from nnopt.data.load import load

__all__ = ["load"]
