"""Settings that have to be made before NumPy and PyTorch are imported."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one of as many processes as cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
