"""A connection to an agent: a process, usually ssh, whose stdin and stdout are the agent's."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mggc_edge.benchmarks.agent.child import Child, LongLineError
from mggc_edge.benchmarks.devices.pack import FIRST_LINES, agent
from mggc_edge.errors import DeviceError, MggcEdgeError

MARKER = "mggc-edge-agent:"  # begins what the first lines say; a login may print other things before
START_SECONDS = 90.0  # until Python has started there, on a slow board
ANSWER_SECONDS = 60.0  # for what takes no time
ALIVE_SECONDS = 10.0  # between two signs of life, while an answer takes long; see agent.serve.SILENT_SECONDS
END_SECONDS = 10.0  # for the agent to end what it began

Complaint = Callable[[int | None, Sequence[str], bool], MggcEdgeError]


def program(folder: str) -> tuple[str, bytes]:
    """Return what is run by `python -c` on a device, and what it reads first: the first lines, and what they take."""
    lines = FIRST_LINES.read_text(encoding="ascii")
    asked = {"folder": folder, "name": agent().name, "bytes": len(agent().data), "marker": MARKER}
    # The folder of the login may hold files with the names of libraries.
    run = f"import sys;sys.path.pop(0);exec(sys.stdin.read({len(lines)}))"
    return run, lines.encode("ascii") + json.dumps(asked).encode("ascii") + b"\n"


class Connection:
    """A running agent.

    Args:
        command: the process that connects.
        first: what is sent at once; see `program`.
        complaint: makes an error of an exit code, the last lines of stderr, and whether the agent had answered before.

    Raises:
        DeviceError: no process can be started, or no agent answers.
    """

    def __init__(self, command: Sequence[str], first: bytes, complaint: Complaint) -> None:
        self._complaint, self._answered = complaint, False
        self._lines: dict[int, deque[dict[str, Any]]] = {}
        self.sent_bytes = 0
        try:
            self._child = Child(command)
        except OSError as error:
            raise DeviceError(
                f"'{command[0]}' cannot be started: {error.strerror}", hint="install the client of OpenSSH"
            ) from error
        try:
            self._begin(first)
        except BaseException:
            self.close()
            raise

    def _begin(self, first: bytes) -> None:
        deadline = time.monotonic() + START_SECONDS
        self._send(first)
        answer = self._marked(deadline)
        if answer.get("missing") is True:
            self._send(agent().data)
            self.sent_bytes += len(agent().data)
            answer = self._marked(deadline)
        self.greeting = answer
        if "error" not in answer:
            answer = self._next(deadline)
            self.greeting.update(answer)
            self._answered = "error" not in answer

    def _marked(self, deadline: float) -> dict[str, Any]:
        while True:
            _, found, text = self._line(deadline).decode(errors="replace").partition(MARKER)
            if found:
                return self._object(text)

    def request(self, request: dict[str, Any], data: bytes = b"", timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Send a request, and bytes that belong to it; return its answer, which may be an error.

        Raises:
            DeviceError: the connection was lost, or the answer makes no sense.
        """
        self.send(request, data)
        answer = self._next(time.monotonic() + timeout)
        if answer.get("do") != request["do"]:
            raise self._nonsense()
        return answer

    def send(self, request: dict[str, Any], data: bytes = b"") -> None:
        """Send a request that has no answer, or one that comes later."""
        self._send(json.dumps(request).encode("ascii") + b"\n" + data)
        self.sent_bytes += len(data)

    def of_worker(self, number: int, timeout: float) -> dict[str, Any]:
        """Return what comes from a worker next.

        Raises:
            TimeoutError: nothing does.
            DeviceError: see `request`.
        """
        deadline, lines = time.monotonic() + timeout, self._lines.setdefault(number, deque())
        while not lines:
            self._sort(self._object(self._line(deadline, timeout_error=True)))
        return lines.popleft()

    def end_worker(self, number: int) -> None:
        """End a worker, and forget what came from it; nothing is to be done where the connection was lost."""
        self._lines.pop(number, None)
        with suppress(MggcEdgeError):
            self.send({"do": "end", "worker": number})

    def close(self) -> None:
        """Close the connection; the agent then ends what it began, and this waits for that."""
        self._child.close()
        self._child.exit_code(END_SECONDS)
        self._child.end()

    def _next(self, deadline: float) -> dict[str, Any]:
        while True:
            answer = self._object(self._line(deadline))
            if not self._sort(answer):
                return answer

    def _sort(self, answer: dict[str, Any]) -> bool:
        """Put aside what a worker says; return whether it was that."""
        number = answer.get("worker")
        if type(number) is int and "do" not in answer:
            if number in self._lines:  # not of one that has been ended
                self._lines[number].append(answer)
            return True
        return False

    def _send(self, data: bytes) -> None:
        try:
            self._child.send(data)
        except OSError:
            raise self._lost() from None

    def _line(self, deadline: float, *, timeout_error: bool = False) -> bytes:
        """Return the next line; meanwhile give signs of life."""
        while True:
            left = deadline - time.monotonic()
            try:
                return self._child.line(min(ALIVE_SECONDS, max(0.0, left)))
            except TimeoutError:
                if left <= ALIVE_SECONDS:
                    if timeout_error:
                        raise
                    raise self._complaint(None, (), self._answered) from None
                if self._answered:
                    self._send(b'{"do": "alive"}\n')
            except LongLineError:
                raise self._nonsense() from None
            except (EOFError, OSError):
                raise self._lost() from None

    def _object(self, line: str | bytes) -> dict[str, Any]:
        answer: Any = None
        with suppress(ValueError, RecursionError):
            answer = json.loads(line)
        if not isinstance(answer, dict):
            raise self._nonsense()
        return answer

    def _lost(self) -> MggcEdgeError:
        return self._complaint(self._child.exit_code(), self._child.last_words(), self._answered)

    def _nonsense(self) -> DeviceError:
        return DeviceError("the agent on the device gave an answer that makes no sense")
