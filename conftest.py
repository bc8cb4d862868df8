"""Settings that have to be made before NumPy and PyTorch are imported."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one of two processes, on two cores maybe
    os.environ.setdefault("OMP_NUM_THREADS", "1")
