"""Ctrl-C where Python would print and lose it: in a finaliser, or in the callback of a weak reference."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

AGAIN_S = 0.01  # long enough for the finaliser to be over


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Give an interrupt that was dropped again, a moment later; it is not printed. Other exceptions are as before."""
    before: Callable[[Any], object] = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            # Not `threading.Thread`: a finaliser may run while this very thread holds one of its locks.
            _thread.start_new_thread(_interrupt_again, ())
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_again() -> None:
    """Send a signal, not `interrupt_main`, which would not wake a thread that waits."""
    time.sleep(AGAIN_S)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
