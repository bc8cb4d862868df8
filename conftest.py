"""Settings that have to be made before NumPy and PyTorch are imported and processes are started."""

import os
import signal

# Shells start what they put in the background with Ctrl-C ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # one of two processes, on two cores maybe
    os.environ.setdefault("OMP_NUM_THREADS", "1")
