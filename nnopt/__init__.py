"""Train neural networks in NumPy or in PyTorch from one YAML configuration."""

import os
import sys

__version__ = "0.1.0"

# OpenBLAS's worker threads wait for the next matrix product in a busy loop of up to 2^26 cycles.
# Meanwhile, they take a core from NumPy's other computations. This setting shortens the loop to
# 2^20 cycles (0.4 ms). In a small network, the next product follows within 0.4 ms, so the threads
# stay awake. Waking a thread may take 0.1 ms on a virtual machine, longer than a small product.
# OpenBLAS reads the setting once, when NumPy is first imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


class _MovedModules:
    """An import finder that refuses the old name of a moved module, and reports the new name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ImportError with the new name of a module that was moved."""
        if not name.startswith("nnopt."):
            return
        from nnopt.schema.moved_modules import MOVED_MODULES

        for old in (name, name.rpartition(".")[0]):
            if old in MOVED_MODULES:
                raise ImportError(f"{old} is now {MOVED_MODULES[old]}", name=name)


sys.meta_path.append(_MovedModules)
