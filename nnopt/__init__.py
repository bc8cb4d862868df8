"""Train every network twice, by hand in NumPy and in PyTorch, from one YAML."""

import os

__version__ = "0.1.0"

# OpenBLAS's worker threads wait for their next matrix product by spinning, up to 2^26 cycles, and
# so take a core from NumPy's own loops in between. 2^20 cycles, 0.4 ms, outlast what lies between
# two products of a small network: a thread that has gone to sleep may need 0.1 ms to wake on a
# virtual machine, longer than the product itself. OpenBLAS reads this once, when NumPy is first
# imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
