"""What every test process needs."""

from __future__ import annotations

import signal

# A shell without job control starts what runs in the background with Ctrl-C ignored, and children inherit that: the
# programs that tests start could then not be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
