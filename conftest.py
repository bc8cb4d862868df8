"""Process settings that must precede the import of NumPy and PyTorch and the start of processes."""

import os
import signal

# A shell starts background processes with SIGINT ignored, and their children inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)

# nohup starts programs with SIGHUP ignored. A handler without effect is not inherited by programs
# that the tests start, so that they react to SIGHUP.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

if "PYTEST_XDIST_WORKER" in os.environ:  # one of two processes, possibly on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
