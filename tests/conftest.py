"""What every test process needs."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

# A shell without job control starts what runs in the background with Ctrl-C ignored, and children inherit that: the
# programs that tests start could then not be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What programs keep for the user from one run to the next is kept for this one run of the tests.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="mggc-edge-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
