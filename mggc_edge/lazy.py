"""Load heavy libraries late, and explain their absence with the line that installs them."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType

from mggc_edge.errors import MissingDependencyError


def install_line(extra: str) -> str:
    """Return the command that installs the optional dependencies named `extra`."""
    return f'pip install "mggc-edge[{extra}]"'


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module` and return it. An interrupt meanwhile arrives when it is loaded, a second one at once.

    Raises:
        MissingDependencyError: the module, or something it needs, cannot be imported; the hint is the install line of
            the optional dependencies `extra`.
    """
    try:
        with contextlib.nullcontext() if module in sys.modules else _uninterrupted():
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{module} cannot be imported here: {error}", hint=install_line(extra)) from error


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep the first SIGINT or SIGTERM for the end, where Python handles them; a further one is heard at once.

    A library of C++ whose initialisation ends in KeyboardInterrupt makes an ImportError of it, as pybind11 does, or
    goes on with what is half there, and crashes.
    """
    kept: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], object]] = {}

    def keep(number: int, frame: FrameType | None) -> None:
        kept.append(number)
        if len(kept) > 1:
            before[number](number, frame)

    try:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # no other may set them, and none hears them
                for number in (signal.SIGINT, signal.SIGTERM):
                    if callable(handler := signal.getsignal(number)):
                        before[number] = handler
                        stack.callback(signal.signal, number, handler)
                        signal.signal(number, keep)
            yield
    finally:
        if kept:
            signal.raise_signal(kept[0])
