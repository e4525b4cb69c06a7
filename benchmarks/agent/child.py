"""A process that is spoken to in lines: started without a shell, always ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINE_BYTES = 2**22  # the power of seven rails, 20 times a second for ten minutes, is 2 MB
SECONDS_TO_END = 5.0
_CHUNK = 2**16
_LAST_BYTES = 2000


class LongLineError(Exception):
    """A line that is longer than any answer."""


class Child:
    """A process whose stdin and stdout are lines; what it writes to stderr is kept for when it has died.

    Args:
        command: the program and its arguments.
        folder: where it runs; None: where this process runs.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], folder: str | None = None) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`; a pipe could fill up
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0, cwd=folder
            )
        except OSError:
            self._errors.close()
            raise
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout

    def fileno(self) -> int:
        """Return the descriptor of its output, to wait for."""
        return self._output.fileno()

    def send(self, data: bytes) -> None:
        """Write to its stdin.

        Raises:
            OSError: it has closed it, or is gone.
        """
        view = memoryview(data)
        while view:
            view = view[self._input.write(view) or 0 :]

    def read(self) -> list[bytes]:
        """Read what it has written by now, waiting for it where there is nothing; return the lines that are complete.

        Raises:
            EOFError: it has closed its stdout.
            LongLineError: a line does not end.
        """
        chunk = os.read(self.fileno(), _CHUNK)
        if not chunk:
            raise EOFError
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise LongLineError
        return lines

    def line(self, timeout: float) -> bytes:
        """Return its next line, without its end, waiting for so many seconds.

        Raises:
            TimeoutError: none has come.
            EOFError, LongLineError: see `read`.
        """
        deadline = time.monotonic() + timeout
        while not self._lines:
            with selectors.DefaultSelector() as selector:  # not select(), which knows only the first 1024 open files
                selector.register(self.fileno(), selectors.EVENT_READ)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
            self._lines += self.read()
        return self._lines.pop(0)

    def close(self) -> None:
        """Close its stdin and its stdout: for most programs that is the end of their work."""
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):
                stream.close()

    def end(self) -> None:
        """End the process, if need be by force, and close what belongs to it."""
        self.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS_TO_END)
        self._errors.close()

    def exit_code(self, timeout: float = SECONDS_TO_END) -> int | None:
        """Return its exit code, below 0 the number of the signal that ended it; None where it goes on."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self) -> list[str]:
        """Return the last lines that it wrote to stderr."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _LAST_BYTES))
        return self._errors.read().decode(errors="replace").strip().splitlines()
