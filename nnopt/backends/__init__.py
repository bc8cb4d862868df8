"""The two backends and the function that selects one."""

from __future__ import annotations

from nnopt.backends.protocol import Backend


def load_backend(name: str) -> Backend:
    """Return the package of a backend. PyTorch is imported later, by the package's functions."""
    if name == "torch":
        from nnopt.backends import torch

        return torch
    from nnopt.backends import numpy

    return numpy
