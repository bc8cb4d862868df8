"""The NumPy backend: every gradient derived and written out."""

from contextlib import AbstractContextManager, nullcontext

from nnopt.architecture.network import Architecture
from nnopt.backends.numpy_scratch.loader import NumpyLoader
from nnopt.backends.numpy_scratch.network import NumpyNetwork
from nnopt.backends.numpy_scratch.threads import usable_threads
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config


def check_backend(config: Config) -> list[str]:
    """Nothing stands against NumPy: what it needs, nnopt needs anyway."""
    return []


def device_errors() -> AbstractContextManager[None]:
    """Nothing to translate: NumPy raises MemoryError itself."""
    return nullcontext()


def default_threads() -> int:
    """Return the number of threads that NumPy's matrix library uses by itself."""
    return usable_threads()


def build_network(architecture: Architecture, config: Config) -> NumpyNetwork:
    """A network without weights yet: ``load`` them."""
    return NumpyNetwork(architecture, config)


def build_loader(part: Part, normalization: Normalization, config: Config) -> NumpyLoader:
    """Batches of one part of a dataset."""
    return NumpyLoader(part, normalization, config)
