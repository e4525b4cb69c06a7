"""The other processes of a job: started, brought together, watched and ended by rank 0.

Fabric's own launcher repeats the command line of rank 0, and kills rank 0 where another process fails: nothing is then
said. Here the others are given the run folder alone, and their error is the one that rank 0 ends with. Each holds the
end of a pipe from rank 0: when that closes, for whatever reason, it ends.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mggc_edge.errors import MggcEdgeError, TrainingError
from mggc_edge.jobs.devices import Devices
from mggc_edge.lazy import require
from mggc_edge.training.processes import ConnectionLostError, Processes, gather, part

READY = "ready"  # what another process says when it can be met
GRACE_S = 10.0  # that rank 0 has to end by itself once another process has failed: gloo tells it at once, NCCL may not
END_S = 10.0  # that the others have to end after the last stage
MAX_LINES = 200  # of what a process that fails has said

Lost = Callable[[MggcEdgeError], None]


@contextlib.contextmanager
def gathered(devices: Devices, command: str, folder: Path, lost: Lost) -> Iterator[Processes]:
    """Yield the processes that train a job, all of which know its folder; end them, whatever comes.

    Args:
        command: of the job: "compress" or "train".
        lost: called in another thread where another process failed and this one did not notice. It ends this one at
            once: it may be waiting in a library, where no signal is heard.

    Raises:
        MissingDependencyError: there are several processes, and Lightning Fabric is not installed.
        TrainingError: another process failed.
    """
    if devices.count == 1:
        yield Processes(devices.device)
        return
    require("lightning_fabric", extra="devices")
    with contextlib.nullcontext() if devices.launched is not None else _Children(devices, lost) as children:
        try:
            with contextlib.nullcontext() if children is None else children.environment():
                processes = gather(devices.device, size=devices.count, on_this_machine=devices.on_this_machine)
            processes.broadcast_text(f"{command}\n{folder.resolve()}")
            yield processes
            processes.barrier()
        except ConnectionLostError as error:
            failure = None if children is None else children.failure(GRACE_S)
            raise failure or error from error
        if children is not None:
            children.finish()
    part()  # not where something failed: NCCL would wait for processes that are gone


class _Children:
    """The processes of rank 1 and up, as children of this one."""

    def __init__(self, devices: Devices, lost: Lost) -> None:
        self._count, self._lost = devices.count, lost
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self._shared = {
            "WORLD_SIZE": str(self._count), "LOCAL_WORLD_SIZE": str(self._count),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        self._line = [*devices.follower, devices.kind]
        self._running: list[subprocess.Popen[str]] = []
        self._ready = [threading.Event() for _ in range(1, self._count)]
        self._failed, self._over = threading.Event(), threading.Event()
        self._failure: MggcEdgeError | None = None

    def __enter__(self) -> _Children:
        try:
            for rank in range(1, self._count):
                env = {**os.environ, **self._shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                pipe = subprocess.PIPE
                # In a session of its own: a Ctrl-C is for rank 0, which ends the others.
                child = subprocess.Popen(
                    self._line, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
                )
                self._running.append(child)
                threading.Thread(target=self._watch, args=(rank, child), daemon=True).start()
            for ready in self._ready:
                while not ready.wait(0.1):
                    if self._failed.is_set():
                        assert self._failure is not None
                        raise self._failure
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Be rank 0 for as long as it takes to meet the others: what is started later is none of them."""
        mine = {**self._shared, "RANK": "0", "LOCAL_RANK": "0"}
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def failure(self, timeout_s: float) -> MggcEdgeError | None:
        """Return what a process ended with, None where none of them failed."""
        self._failed.wait(timeout_s)
        return self._failure

    def finish(self) -> None:
        """Let the others come to their end."""
        self._over.set()
        for child in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(END_S)

    def _end(self) -> None:
        self._over.set()
        for child in self._running:
            child.kill()
            child.wait()
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                child.stdin.close()

    def _watch(self, rank: int, child: subprocess.Popen[str]) -> None:
        """Wait for a process's end; if it failed and rank 0 does not end in time, say so."""
        assert child.stdout is not None
        assert child.stderr is not None
        with child.stdout, child.stderr:
            if child.stdout.readline().strip() == READY:
                self._ready[rank - 1].set()
            said = "".join(collections.deque(child.stderr, maxlen=MAX_LINES))
        code = child.wait()
        if not code or self._over.is_set():
            return
        self._failure = self._failure or _failure(rank, self._count, code, said)
        self._failed.set()
        if not self._over.wait(2 * GRACE_S):
            self._lost(self._failure)


def _failure(rank: int, count: int, code: int, said: str) -> MggcEdgeError:
    """Return what rank 0 says of a process that failed; its last line is the error, as `error_line` has it."""
    who = f"process {rank} of {count}, counted from 0,"
    try:
        document = json.loads(said.splitlines()[-1])
        return TrainingError(f"{who} failed: {document['message']}", document["hint"])
    except (ValueError, LookupError, TypeError):
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
        return TrainingError(f"{who} {how}{': ' if last else ''}{last}")


def error_line(error: MggcEdgeError) -> str:
    """Return an error as a line for rank 0."""
    return json.dumps({"message": error.message, "hint": error.hint})
