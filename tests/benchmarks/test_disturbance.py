"""When a sample is called disturbed, and which pairs are left out."""

from __future__ import annotations

import pytest

from mggc_edge.benchmarks.disturbance import Noted, left_out
from mggc_edge.benchmarks.remarks import WARNINGS, disturbing, remark_json

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("noted", "threads", "lost", "disturbed"),
    [
        (Noted(SECOND, SECOND, 3, 1_000_000), 1, 0.001, False),  # as a quiet machine gave
        (Noted(SECOND, 2 * SECOND, 8, 4_000_000), 2, 0.004, False),
        (Noted(SECOND, SECOND, 0, 20_000_000), 1, 0.02, False),
        (Noted(SECOND, SECOND, 0, 20_000_001), 1, 0.020000001, True),
        (Noted(SECOND, SECOND // 2, 130, SECOND // 2), 1, 0.5, True),  # beside a process that never rests
        (Noted(SECOND // 20, SECOND // 20, 1, 50_000), 1, 0.001, False),  # a single stop in 50 ms is no rate
        # Threads that wait for each other have little processor time, and that is no loss.
        (Noted(SECOND, SECOND, 3, None), 2, None, False),
        (Noted(SECOND, SECOND, 91, None), 2, None, True),
        (Noted(SECOND, SECOND, 90, None), 2, None, False),
        (Noted(SECOND, None, 91, None), 2, None, True),
        (Noted(SECOND, SECOND // 8, 35, None), 2, None, True),  # seven others on its cores: few turns, but short ones
        (Noted(SECOND, 2 * SECOND, 120, None), 2, None, False),  # two threads, each on a core of its own
        (Noted(SECOND // 1000, SECOND // 1000, 1, None), 2, None, False),
        (Noted(SECOND // 1000, SECOND // 1000, 2, None), 2, None, True),
        (Noted(SECOND, int(0.97 * SECOND), 0, None), 1, 0.03, True),
        (Noted(SECOND, int(1.01 * SECOND), 0, None), 1, 0.0, False),
        (Noted(SECOND), 1, None, False),
        (Noted(0, 0, 0, 0), 1, None, False),
    ],
)
def test_a_sample_is_disturbed_where_others_took_more_than_2_percent_of_it(
    noted: Noted, threads: int, lost: float | None, disturbed: bool
) -> None:
    assert noted.lost(threads) == (None if lost is None else pytest.approx(lost))
    assert noted.disturbed(threads) == disturbed


@pytest.mark.parametrize(
    ("disturbed", "out"),
    [
        ([[0, 0], [0, 0]], ((), ())),
        ([[0, 1], [1, 0]], ((1,), (0,))),  # half of the pairs
        ([[0, 1], [1, 1]], None),
        ([[1, 1], [0, 0], [0, 0]], ((0, 1), (), ())),
        ([[1, 1], [0, 0]], None),  # one process of two would remain
        ([[1], [1], [0], [0]], ((0,), (0,), (), ())),
        ([[1], [1], [0, 0, 0]], None),
        ([[0, 0, 1]], ((2,),)),
        ([[1]], None),
    ],
)
def test_disturbed_pairs_are_left_out_where_half_of_pairs_and_processes_remain(
    disturbed: list[list[int]], out: tuple[tuple[int, ...], ...] | None
) -> None:
    assert left_out([[bool(pair) for pair in process] for process in disturbed]) == out


def test_leaving_out_by_counts_shifts_a_mean_by_as_little_as_is_promised() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    own = 1 + 0.10 * rng.standard_normal(400_000)  # durations with a spread of 10 %
    stays = rng.random(own.size) < np.exp(-np.log(2) * own)  # stops at random, so that half of them remain
    assert stays.mean() == pytest.approx(0.5, abs=0.005)
    assert own[stays].mean() - 1 == pytest.approx(-np.log(2) * 0.01, abs=0.001)


def test_what_forbids_a_verdict_is_load_preemption_stolen_time_throttling_and_a_failed_control() -> None:
    assert disturbing(WARNINGS) == ("control", "load", "preempted", "steal_apart", "throttled")
    assert disturbing(["unsettled", "load", "load"]) == ("load",)


def test_every_warning_says_what_to_do() -> None:
    for code, remark in WARNINGS.items():
        assert remark_json(code) == {"code": code, "text": remark.text, "advice": remark.advice}
        assert remark.advice
        assert not f"{remark.text}{remark.advice}".endswith(".")


def test_the_parts_of_a_sample_count_together_and_what_one_does_not_know_is_not_known() -> None:
    parts = [Noted(10, 9, 1, 2, 0, None), Noted(20, 18, 0, 3, 5, 7)]
    assert Noted.together(parts) == Noted(30, 27, 1, 5, 5, None)
    assert Noted.together(parts[1:]) == parts[1]
