"""The agent's connection: whatever ends it, nothing goes on."""

from __future__ import annotations

import json
import os
import selectors
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent import serve
from mggc_edge.benchmarks.agent.serve import Server
from mggc_edge.benchmarks.agent.store import Store
from tests.benchmarks.bench_helpers import Told

SLEEPER = (
    sys.executable,
    "-S",
    "-c",
    "import sys; print('up', flush=True); sys.stdin.readline(); print('{}', flush=True)",
)


class Asker:
    """Asks a server in a thread of this process, over pipes."""

    def __init__(self, folder: Path, **choices: Any) -> None:
        requests, self.ask_end = os.pipe()
        self.answer_end, answers = os.pipe()
        self._ends = [requests, answers]
        self.store = Store(folder)
        server = Server(requests, answers, Told(), self.store, SLEEPER, **choices)
        self.server, self.thread = server, threading.Thread(target=server.run)
        self.thread.start()
        self._rest = b""

    def send(self, request: dict[str, Any], data: bytes = b"") -> None:
        os.write(self.ask_end, json.dumps(request).encode() + b"\n" + data)

    def ask(self, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
        self.send(request, data)
        return self.next()

    def next(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            with selectors.DefaultSelector() as selector:
                selector.register(self.answer_end, selectors.EVENT_READ)
                assert selector.select(20), "no answer"
            self._rest += os.read(self.answer_end, 2**16)
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def over(self) -> bool:
        self.thread.join(20)
        return not self.thread.is_alive()

    def close(self) -> None:
        for end in (self.ask_end, self.answer_end):
            try:
                os.close(end)
            except OSError:
                continue
        self.thread.join(20)
        for end in self._ends:
            os.close(end)
        self.store.close()


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    made = Asker(tmp_path)
    yield made
    made.close()


def started(asker: Asker, number: int) -> int:
    """The process of a worker that has been started and is up."""
    assert asker.ask({"do": "start", "worker": number}) == {"do": "start"}
    assert asker.next() == {"worker": number, "line": "up"}
    return asker.server._workers[number].process.pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_device_tells_of_itself(asker: Asker) -> None:
    answer = asker.ask({"do": "others"})
    assert {"running": 0, "do": "others"}.items() <= answer.items()
    assert set(answer) == {"do", "running", "clock_khz"}
    assert asker.ask({"do": "moment"})["load"] == 0.0
    assert asker.ask({"do": "machine"})["machine"]["processor"] == "CPU"
    assert set(asker.ask({"do": "libraries"})) == {"do", "numpy", "onnxruntime", "openvino", "tensorrt"}


def test_workers_are_told_apart_and_their_lines_relayed(asker: Asker) -> None:
    pids = [started(asker, number) for number in (3, 7)]
    asker.send({"do": "ask", "worker": 7, "request": {"do": "x"}})
    assert asker.next() == {"worker": 7, "line": "{}"}
    assert asker.next() == {"worker": 7, "ended": 0, "words": []}  # the program ends after its answer
    asker.send({"do": "end", "worker": 3})
    assert asker.ask({"do": "others"})["running"] == 0
    assert not any(map(alive, pids))
    asker.send({"do": "ask", "worker": 3, "request": {}})
    assert asker.next() == {"worker": 3, "ended": None, "words": []}


def test_bytes_and_requests_may_come_in_one_piece(asker: Asker, tmp_path: Path) -> None:
    name = f"{'0' * 64}.onnx"
    data = b'\n{"do": "end"}\n' * 10_000
    half = len(data) // 2
    asker.send({"do": "put", "name": name, "bytes": half}, data[:half] + b'{"do": "others"}\n')
    assert asker.next() == {"do": "put", "got": half}
    assert asker.next()["do"] == "others"
    assert asker.ask({"do": "keep", "name": name})["error"] == "changed"
    assert asker.ask({"do": "put", "name": "../x", "bytes": 1}, b"x")["error"] == "store"
    assert asker.ask({"do": "others"})["running"] == 0


def test_a_closed_connection_ends_the_workers(asker: Asker) -> None:
    pid = started(asker, 0)
    os.close(asker.ask_end)
    assert asker.over()
    assert not alive(pid)


def test_nobody_who_reads_the_answers_ends_the_workers(asker: Asker) -> None:
    pid = started(asker, 0)
    os.close(asker.answer_end)
    asker.send({"do": "others"})
    assert asker.over()
    assert not alive(pid)


@pytest.mark.parametrize("inside", [False, True], ids=["between requests", "inside a file"])
def test_a_connection_that_is_silent_is_taken_for_lost(tmp_path: Path, inside: bool) -> None:
    asker = Asker(tmp_path, silent_seconds=0.5)
    try:
        pid = started(asker, 0)
        if inside:
            asker.send({"do": "put", "name": f"{'0' * 64}.onnx", "bytes": 100}, b"x")
        assert asker.over()
        assert not alive(pid)
    finally:
        asker.close()


def test_a_sign_of_life_keeps_it(tmp_path: Path) -> None:
    asker = Asker(tmp_path, silent_seconds=1.0)
    try:
        pid, pause = started(asker, 0), threading.Event()
        for _ in range(6):
            pause.wait(0.3)
            asker.send({"do": "alive"})
        assert alive(pid)
    finally:
        asker.close()


def test_a_signal_ends_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[int] = []
    monkeypatch.setattr("signal.signal", lambda number, handler: ignored.append(number))
    with pytest.raises(serve.GoneError):
        serve._stop(15, None)
    assert ignored == list(serve.SIGNALS)
