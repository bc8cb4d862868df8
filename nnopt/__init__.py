"""Train every network twice, by hand in NumPy and in PyTorch, from one YAML."""

import os

__version__ = "0.1.0"

# OpenBLAS's worker threads wait for their next matrix product by spinning, up to 2^26 cycles, and
# so take a core from NumPy's own loops in between; 2^12 cycles cost small products nothing that
# could be measured. OpenBLAS reads this once, when NumPy is first imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "12")
