"""The NumPy backend, in which every gradient is derived and implemented by hand."""

from collections.abc import Iterator
from contextlib import contextmanager

from nnopt.architecture.network import Architecture
from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.backends.numpy.modules import layer_of
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.threads import default_threads as default_threads
from nnopt.schema import Config


def check_backend(config: Config) -> list[str]:
    """Return an empty list of problems, because NumPy is always available."""
    return []


@contextmanager
def device_errors() -> Iterator[None]:
    """Add the name of the layer to a MemoryError that is raised in the layer's forward pass."""
    try:
        yield
    except MemoryError as error:
        name = layer_of(error.__traceback__)
        if name is None:
            raise
        message = str(error) or "more memory was needed"
        raise MemoryError(f"{message} in layer {name}") from error


def try_components(architecture: Architecture, config: Config) -> None:
    """Compute each configured component of a plug-in once. Raises ConfigError if one is faulty."""
    from nnopt.backends.numpy import plugins  # not needed without plug-ins

    plugins.try_components(architecture, config)


build_network, build_loader = NumpyNetwork, NumpyLoader
