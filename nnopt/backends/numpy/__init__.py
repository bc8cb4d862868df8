"""The NumPy backend: every gradient derived and written out."""

from collections.abc import Iterator
from contextlib import contextmanager

from nnopt.architecture.network import Architecture
from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.backends.numpy.modules import layer_of
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.threads import default_threads as default_threads
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config


def check_backend(config: Config) -> list[str]:
    """Nothing stands against NumPy: what it needs, nnopt needs anyway."""
    return []


@contextmanager
def device_errors() -> Iterator[None]:
    """A context in which a MemoryError names the layer in whose forward pass it is raised."""
    try:
        yield
    except MemoryError as error:
        name = layer_of(error.__traceback__)
        if name is None:
            raise
        what = str(error) or "more memory was needed"
        raise MemoryError(f"{what} in layer {name}") from error


def build_network(architecture: Architecture, config: Config) -> NumpyNetwork:
    """A network without weights yet: ``load`` them."""
    return NumpyNetwork(architecture, config)


def build_loader(part: Part, normalization: Normalization, config: Config) -> NumpyLoader:
    """Batches of one part of a dataset."""
    return NumpyLoader(part, normalization, config)
