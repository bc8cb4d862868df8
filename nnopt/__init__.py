"""Train every network twice, by hand in NumPy and in PyTorch, from one YAML."""

import os
import sys

__version__ = "0.1.0"

# OpenBLAS's worker threads wait for their next matrix product by spinning, up to 2^26 cycles, and
# so take a core from NumPy's own loops in between. 2^20 cycles, 0.4 ms, outlast what lies between
# two products of a small network: a thread that has gone to sleep may need 0.1 ms to wake on a
# virtual machine, longer than the product itself. OpenBLAS reads this once, when NumPy is first
# imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


class _MovedModules:
    """A finder of modules that all other finders miss."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ImportError with the new name of a module that was moved."""
        if not name.startswith("nnopt."):
            return
        from nnopt.moved_modules import MOVED_MODULES

        for old in (name, name.rpartition(".")[0]):
            if old in MOVED_MODULES:
                raise ImportError(f"{old} is now {MOVED_MODULES[old]}", name=name)


sys.meta_path.append(_MovedModules)
