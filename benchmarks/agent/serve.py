"""One connection to a device: workers are started, asked and ended over it, and files are sent, `agent serve FOLDER`.

Requests come as lines of JSON on stdin; every one but "alive", "ask" and "end" has one line as its answer.

    {"do": "machine"}, "moment", "others", ... -> what `Surroundings.tell` says
    {"do": "have", "files": [[name, bytes], ...]}  -> missing, folder
    {"do": "put", "name", "bytes"}, then so many   -> got: bytes there by now
    {"do": "keep", "name"}                         -> the file has its name
    {"do": "read", "name", "offset"}               -> data: of a file that a worker wrote, in base64; "" at its end
    {"do": "start", "worker": n}                   -> a fresh worker with that number, in the folder `work`
    {"do": "ask", "worker": n, "request": {...}}   -> {"worker": n, "line": ...} when it answers, or "ended", "words"
    {"do": "end", "worker": n}
    {"do": "alive"}

Every answer repeats `do`, except those of workers; one with the key `error` has a `message`. When stdin closes, says
nothing for a minute, or nobody reads the answers any more, workers are ended, and so is this process: nothing goes on
without the one who asked for it.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .child import Child, LongLineError
from .store import Store, StoreError
from .surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SILENT_SECONDS = 60.0
READ_BYTES = 2**19
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_CHUNK = 2**16


class GoneError(Exception):
    """Nobody asks any more."""


class Server:
    """Answers the requests of one connection.

    Args:
        requests, answers: descriptors of the connection.
        surroundings: what the device tells of itself.
        store: the files on it.
        command: the program that runs one model.
        silent_seconds: a connection on which nothing is heard for so long is taken for lost.
    """

    def __init__(
        self,
        requests: int,
        answers: int,
        surroundings: Surroundings,
        store: Store,
        command: Sequence[str],
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._requests, self._answers = requests, answers
        self._surroundings, self._store, self._command = surroundings, store, command
        self._silent_seconds = silent_seconds
        self._come = bytearray()
        self._heard = time.monotonic()
        self._workers: dict[int, Child] = {}
        self._own: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            "have": self._have,
            "put": self._put,
            "keep": self._keep,
            "read": self._read,
            "start": self._start,
            "ask": self._ask,
            "end": self._end,
            "alive": self._alive,
        }

    def run(self) -> None:
        """Answer until nobody asks any more; then end every worker."""
        try:
            with selectors.DefaultSelector() as selector:
                self._selector = selector
                selector.register(self._requests, selectors.EVENT_READ)
                while True:
                    self._turn()
        except GoneError:
            pass
        finally:
            for child in self._workers.values():
                child.end()

    def _turn(self) -> None:
        left = self._heard + self._silent_seconds - time.monotonic()
        ready = self._selector.select(max(0.0, left))
        if not ready:
            raise GoneError
        for key, _ in ready:
            if key.data is None:
                self._hear()
                while b"\n" in self._come:
                    line, _, rest = bytes(self._come).partition(b"\n")
                    self._come = bytearray(rest)
                    self._answer(json.loads(line))
            elif key.data in self._workers:
                self._relay(key.data)

    def _answer(self, request: dict[str, Any]) -> None:
        do = request["do"]
        try:
            answer = self._own[do](request) if do in self._own else self._surroundings.tell(do)
        except StoreError as error:
            answer = {"error": error.kind, "message": str(error)}
        if answer is not None:
            self._say({"do": do, **answer})

    def _alive(self, request: dict[str, Any]) -> None:
        """Do nothing: it was heard."""

    def _have(self, request: dict[str, Any]) -> dict[str, Any]:
        missing = self._store.missing([(name, size) for name, size in request["files"]])
        return {"missing": missing, "folder": str(self._store.folder), "work": str(self._store.work)}

    def _put(self, request: dict[str, Any]) -> dict[str, Any]:
        size = request["bytes"]
        while len(self._come) < size:
            self._wait()
        data, self._come = bytes(self._come[:size]), self._come[size:]
        return {"got": self._store.put(request["name"], data)}

    def _keep(self, request: dict[str, Any]) -> dict[str, Any]:
        self._store.keep(request["name"])
        return {}

    def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        data = self._store.read(request["name"], request["offset"], READ_BYTES)
        return {"data": base64.b64encode(data).decode("ascii")}

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request["worker"]
        try:
            child = Child(self._command, str(self._store.work))
        except OSError as error:
            return {"error": "start", "message": str(error.strerror)}
        self._workers[number] = child
        self._selector.register(child.fileno(), selectors.EVENT_READ, number)
        return {}

    def _ask(self, request: dict[str, Any]) -> None:
        child = self._workers.get(request["worker"])
        try:
            if child is None:
                raise BrokenPipeError
            child.send(json.dumps(request["request"]).encode() + b"\n")
        except OSError:
            self._died(request["worker"])

    def _end(self, request: dict[str, Any]) -> None:
        child = self._workers.pop(request["worker"], None)
        if child is not None:
            self._selector.unregister(child.fileno())
            child.end()

    def _relay(self, number: int) -> None:
        try:
            lines = self._workers[number].read()
        except (EOFError, OSError, LongLineError):
            self._died(number)
            return
        for line in lines:
            self._say({"worker": number, "line": line.decode(errors="replace")})

    def _died(self, number: int) -> None:
        """Say how a worker ended that was not asked to."""
        code, words = None, []
        if number in self._workers:
            child = self._workers[number]
            code, words = child.exit_code(), child.last_words()
            self._end({"worker": number})
        self._say({"worker": number, "ended": code, "words": words[-1:]})

    def _say(self, answer: dict[str, Any]) -> None:
        view = memoryview(json.dumps(answer).encode() + b"\n")
        try:
            while view:
                view = view[os.write(self._answers, view) :]
        except OSError:
            raise GoneError from None

    def _wait(self) -> None:
        """Wait for the one who asks alone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            if not selector.select(self._silent_seconds):
                raise GoneError
        self._hear()

    def _hear(self) -> None:
        chunk = os.read(self._requests, _CHUNK)
        if not chunk:
            raise GoneError
        self._come += chunk
        self._heard = time.monotonic()


def _stop(number: int, frame: object) -> None:  # noqa: ARG001  as `signal` calls it
    for each in SIGNALS:  # what follows ends workers, and is not to be ended itself
        signal.signal(each, signal.SIG_IGN)
    raise GoneError


def main() -> None:
    """Serve this process's stdin and stdout; what a library prints goes to stderr."""
    program, folder = sys.argv[0], Path(sys.argv[2])
    answers = os.dup(1)
    os.dup2(2, 1)
    for number in SIGNALS:
        signal.signal(number, _stop)
    # An archive has a copy of the library's machine.py beside these files.
    surroundings = Surroundings(import_module(f"{__package__}.machine").this_machine)
    try:
        store = Store(folder, needed=(Path(program).name,))
    except StoreError as error:
        os.write(answers, json.dumps({"do": "serve", "error": error.kind, "message": str(error)}).encode() + b"\n")
        return
    try:
        os.write(answers, json.dumps({"do": "serve"}).encode() + b"\n")
        Server(0, answers, surroundings, store, (sys.executable, program, "worker")).run()
    except GoneError:
        pass  # by a signal, between two requests
    finally:
        surroundings.close()
        store.close()
