"""Batches made ahead in a thread equal batches made directly, and failures reach whoever asks."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from mggc_edge.errors import PictureError
from mggc_edge.training.bank import Ahead


def test_batches_equal_those_made_directly_in_any_order() -> None:
    ahead = Ahead(lambda step: step * step, 6)
    assert [ahead.get(step) for step in (0, 1, 2, 5, 3, 4, 4, 5)] == [0, 1, 4, 25, 9, 16, 16, 25]


def test_the_next_batch_is_made_in_a_thread_and_none_after_the_last() -> None:
    made: list[tuple[int, bool]] = []
    done = threading.Event()

    def make(step: int) -> int:
        made.append((step, threading.current_thread() is threading.main_thread()))
        if step == 1:
            done.set()
        return step

    ahead = Ahead(make, 2)
    ahead.get(0)
    assert done.wait(10)
    ahead.get(1)
    assert made == [(0, True), (1, False)]


def test_a_failure_reaches_the_step_that_asks_for_the_batch_and_not_the_one_before() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise PictureError("gone")
        return step

    ahead = Ahead(make, 3)
    assert ahead.get(0) == 0
    for _ in range(2):
        with pytest.raises(PictureError, match="gone"):
            ahead.get(1)
    assert ahead.get(2) == 2


def test_a_process_ends_while_a_batch_is_ready_that_no_one_fetches() -> None:
    program = (
        "from mggc_edge.training.bank import Ahead\na = Ahead(lambda step: step, 9)\na.get(0)\nraise SystemExit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (3, b"")
