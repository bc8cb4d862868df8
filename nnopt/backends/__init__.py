"""The two backends and the function that selects one."""

from __future__ import annotations

from nnopt.backends.protocol import Backend


def load_backend(name: str) -> Backend:
    """Return the package of a backend. Its functions import PyTorch only when they are called."""
    if name == "torch":
        from nnopt.backends import torch

        return torch
    from nnopt.backends import numpy

    return numpy
