"""Clocks are locked only when it is asked for, and put back however a measurement ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent import clocks, heat
from mggc_edge.benchmarks.isolation import AGENT
from tests.benchmarks.agent.boards import CPU, Tree, every_board, make

MODES = {
    "nano": ("MAXN", 0), "xavier-nx": ("MODE_20W_6CORE", 8), "orin-nano": ("MAXN_SUPER", 2),
    "orin-nx": ("MAXN_SUPER", 2), "agx-orin": ("MAXN", 0), "thor": ("120W", 1),
}  # fmt: skip
STORE = f"{clocks.FOLDER}/{clocks.STORE}"


@every_board
def test_the_power_mode_is_read(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert clocks.power_mode(tmp_path) == dict(zip(("name", "id"), MODES[name], strict=True))


def test_where_nvpmodel_needs_root_its_status_file_has_the_number(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.program("usr/sbin/nvpmodel", "#!/bin/sh\necho 'NVPM ERROR: root'; exit 255")
    assert clocks.power_mode(tmp_path) is None
    tree.write("var/lib/nvpmodel/status", "pmode:0002 fmode:cool")
    assert clocks.power_mode(tmp_path) == {"name": None, "id": 2}
    (tmp_path / "usr/sbin/nvpmodel").unlink()
    assert clocks.power_mode(tmp_path) == {"name": None, "id": 2}


@every_board
def test_clocks_are_locked_and_put_back(tmp_path: Path, name: str) -> None:
    tree = make(tmp_path, name)
    before = clocks.limits(tmp_path)
    assert len(before) == 3 * len(tree.kind.policies) + 2  # and none of what is no GPU
    lock = clocks.Lock(tmp_path)
    assert lock.take() == []
    assert heat.locked(heat.look(tmp_path)) == {"cpu": True, "gpu": True}
    assert tree.read(STORE).startswith(str(tmp_path / CPU))
    assert lock.give_back() == []
    assert clocks.limits(tmp_path) == before
    assert tree.calls() == [f"--store {tmp_path / STORE}", "", f"--restore {tmp_path / STORE}"]
    assert not (tmp_path / STORE).exists()
    assert lock.give_back() == []
    assert len(tree.calls()) == 3


def test_a_board_without_jetson_clocks_is_told_so(tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    (tmp_path / "usr/bin/jetson_clocks").unlink()
    with pytest.raises(clocks.ClocksError, match=r"^--lock-clocks needs jetson_clocks, which is not on the device$"):
        clocks.command("agent", tmp_path)
    with pytest.raises(clocks.ClocksError, match=r"^jetson_clocks fails: .*/jetson_clocks: No such file or directory$"):
        clocks.Lock(tmp_path).take()


@pytest.mark.parametrize("code", [1, 0])  # old versions print an error and end with 0
@pytest.mark.parametrize("action", ["--store", "lock"])
def test_where_locking_fails_the_clocks_are_as_they_were(tmp_path: Path, action: str, code: int) -> None:
    tree = make(tmp_path, "orin-nano")
    before = clocks.limits(tmp_path)
    tree.write("fails", f"{action} {code}")
    with pytest.raises(clocks.ClocksError, match=rf"^jetson_clocks fails: Error: Failed to {action}$"):
        clocks.Lock(tmp_path).take()
    assert clocks.limits(tmp_path) == before
    assert not (tmp_path / STORE).exists()
    (tmp_path / "fails").unlink()
    lock = clocks.Lock(tmp_path)
    assert lock.take() == []  # nothing is left of the failure
    lock.give_back()


def test_a_program_that_wants_root_is_named_with_the_way_out(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.program("usr/bin/jetson_clocks", '#!/bin/sh\necho "Error: Run this script($0) as a root user"; exit 1')
    with pytest.raises(clocks.ClocksError) as caught:
        clocks.Lock(tmp_path).take()
    assert caught.value.hint == clocks.ROOT_HINT


@pytest.mark.parametrize("code", [1, 0])
def test_where_restoring_fails_the_way_out_is_said_and_the_file_kept(tmp_path: Path, code: int) -> None:
    tree = make(tmp_path, "orin-nano")
    lock = clocks.Lock(tmp_path)
    lock.take()
    tree.write("fails", f"--restore {code}")
    (said,) = lock.give_back()
    assert said == (
        "the clocks could not be put back (Error: Failed to --restore): sudo jetson_clocks --restore "
        f"{tmp_path / STORE}, or restart the board"
    )
    assert (tmp_path / STORE).exists()


def test_a_restore_that_restores_nothing_is_noticed(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    lock = clocks.Lock(tmp_path)
    lock.take()
    tree.program("usr/bin/jetson_clocks", "#!/bin/sh\nexit 0")
    (said,) = lock.give_back()
    assert said.startswith("3 limits of clocks are not what they were (sys/class/devfreq/17000000.gpu/min_freq was ")


def test_a_highest_clock_that_the_kernel_lowered_meanwhile_is_its_own(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    lock = clocks.Lock(tmp_path)
    lock.take()
    tree.write(f"{CPU}/policy0/scaling_max_freq", 1_190_400)
    assert lock.give_back() == []


def test_two_measurements_do_not_lock_the_same_clocks(tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    first, second = clocks.Lock(tmp_path), clocks.Lock(tmp_path)
    first.take()
    with pytest.raises(clocks.ClocksError, match=rf"another measurement has locked the clocks \(process {os.getpid()}"):
        second.take()
    assert heat.locked(heat.look(tmp_path))["cpu"] is True
    first.give_back()
    assert second.take() == []
    second.give_back()


def test_root_starts_the_guard_itself_and_others_through_sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def answers(code: int) -> Callable[[Sequence[str]], tuple[int, str]]:
        def run(command: Sequence[str]) -> tuple[int, str]:
            asked.append(command)
            return code, ""

        return run

    make(tmp_path, "thor")
    guard = ["python3", "agent", "clocks", str(tmp_path)]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert clocks.command("agent", tmp_path, "python3", answers(1)) == guard
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert clocks.command("agent", tmp_path, "python3", answers(0)) == ["sudo", "-n", *guard]
    with pytest.raises(
        clocks.ClocksError, match=r"^--lock-clocks needs root on the device, and sudo does not give it$"
    ):
        clocks.command("agent", tmp_path, "python3", answers(1))
    assert asked == [["sudo", "-n", "true"]] * 2


def test_a_command_that_is_not_there_or_hangs_is_an_error_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert clocks.run([str(tmp_path / "none")]) == (127, f"{tmp_path / 'none'}: No such file or directory")
    monkeypatch.setattr(clocks, "SECONDS", 0.05)
    assert clocks.run(["sleep", "5"]) == (124, "sleep did not end within 0.05 s")


# The guard in a process of its own.


@contextmanager
def guarded(tree: Tree) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(AGENT), "clocks", str(tree.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def test_the_guard_holds_the_clocks_until_its_stdin_ends(tmp_path: Path) -> None:
    tree = make(tmp_path, "agx-orin")
    before = clocks.limits(tmp_path)
    with guarded(tree) as process:
        assert answer(process) == {"locked": True, "remarks": []}
        assert heat.locked(heat.look(tmp_path)) == {"cpu": True, "gpu": True}
        assert process.stdin is not None
        process.stdin.close()
        assert answer(process) == {"restored": True, "remarks": []}
        assert process.wait(10) == 0
    assert clocks.limits(tmp_path) == before


@pytest.mark.parametrize("number", clocks.SIGNALS)
def test_a_signal_puts_the_clocks_back(tmp_path: Path, number: signal.Signals) -> None:
    tree = make(tmp_path, "orin-nx")
    before = clocks.limits(tmp_path)
    with guarded(tree) as process:
        answer(process)
        process.send_signal(number)
        assert answer(process) == {"restored": True, "remarks": []}
        assert process.wait(10) == 0
    assert clocks.limits(tmp_path) == before


def test_a_signal_while_they_are_being_locked_puts_them_back_too(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nx")
    tree.write("slow", 1)
    before = clocks.limits(tmp_path)
    with guarded(tree) as process:
        while len(tree.calls()) < 2:  # it is locking now
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # a second one does not cut off what puts them back
        assert answer(process) == {"restored": True, "remarks": []}
        assert process.wait(10) == 0
    assert clocks.limits(tmp_path) == before
    assert tree.calls()[-1].startswith("--restore ")


def test_the_clocks_are_put_back_when_whoever_asked_is_killed(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    before = clocks.limits(tmp_path)
    # A program that has them locked and is killed before it can say anything to the guard.
    program = (
        "import subprocess, sys, time\n"
        f"guard = subprocess.Popen([sys.executable, {str(AGENT)!r}, 'clocks', {str(tmp_path)!r}], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "guard.stdout.readline()\nprint(guard.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        assert heat.locked(heat.look(tmp_path)) == {"cpu": True, "gpu": True}
        asking.kill()
    lock = clocks.Lock(tmp_path)
    while not taken(lock):  # the guard ends by itself, and frees the clocks for the next one
        time.sleep(0.01)
    lock.give_back()
    assert clocks.limits(tmp_path) == before
    assert tree.calls()[2].startswith("--restore ")


def taken(lock: clocks.Lock) -> bool:
    try:
        return lock.take() == []
    except clocks.ClocksError as error:
        if "another measurement" in error.message:
            return False
        raise


def test_what_a_killed_guard_has_left_is_put_back_by_the_next(tmp_path: Path) -> None:
    tree = make(tmp_path, "thor")
    before = clocks.limits(tmp_path)
    with guarded(tree) as process:
        answer(process)
        process.kill()
        process.wait(10)
    assert clocks.limits(tmp_path) != before
    lock = clocks.Lock(tmp_path)
    assert lock.take() == ["an earlier measurement was killed and had left the clocks locked: they were put back first"]
    assert lock.give_back() == []
    assert clocks.limits(tmp_path) == before


def test_the_guard_answers_an_error_and_ends(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.write("fails", "lock 1")
    with guarded(tree) as process:
        assert answer(process) == {
            "error": "clocks",
            "message": "jetson_clocks fails: Error: Failed to lock",
            "hint": "leave --lock-clocks out",
        }
        assert process.wait(10) == 1
