"""What a measurement warns of: codes, what they mean, what to do; and which of them forbid a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """A warning.

    Attributes:
        text: what was found.
        advice: what to do.
        disturbs: samples of a side are not those of the model alone: the comparison is inconclusive, however narrow its
            interval is, because what happens in every pair alike does not widen it.
    """

    text: str
    advice: str
    disturbs: bool = False


QUIET = "end what else runs, and measure again with mggc-edge bench"
WARNINGS: Mapping[str, Remark] = {
    "control": Remark(
        "the control failed: a model differs from itself by more than 1 %, as far as these samples tell",
        QUIET,
        disturbs=True,
    ),
    "enqueue_bound": Remark(
        "the processor that hands out the work takes the time, not the accelerator",
        "measure larger pictures, or let the engine record its work once (a CUDA graph)",
    ),
    "few_samples": Remark(
        "few samples: under 5 processes or 15 pairs, so that the intervals are wide",
        "more pairs: mggc-edge bench --pairs",
    ),
    "frequency": Remark(
        "the clock of the cores moved by more than 5 % between pairs",
        "fix the clock frequency: the governor 'performance', on a Jetson --lock-clocks; cool the machine",
    ),
    "heat": Remark(
        "the processor was slowed down for its heat while it was measured",
        "cool the machine, or let it rest between measurements",
    ),
    "implausible": Remark(
        "a realisation above 1 is implausible: more speed was gained than multiplications were saved",
        "measure again on a quiet machine, and with --threads 1",
    ),
    "load": Remark(
        "while it was measured, other processes wanted to run, more than cores were left for", QUIET, disturbs=True
    ),
    "no_control": Remark("others disturbed the model that was measured twice, so that it checks nothing", QUIET),
    "percentiles": Remark(
        "too few samples for an interval of the 90th percentile, which takes 36",
        "more pairs: mggc-edge bench --pairs",
    ),
    "preempted": Remark(
        "other processes took more than 2 % of the time in too many of the pairs to leave those out",
        QUIET,
        disturbs=True,
    ),
    "steal": Remark(
        "the host of this virtual machine took more than 2 % of its time away: intervals cover the ratio of means, too",
        "measure again, at another time or on a machine of its own",
    ),
    "steal_apart": Remark(
        "the host of this virtual machine took more than 2 % of its time away, and the baseline is of another time",
        "name the baseline's model file instead of its earlier numbers, so that both are measured together",
        disturbs=True,
    ),
    "suspended": Remark(
        "the machine slept during the measurement; the pairs in which it did are left out",
        "keep it awake, and measure again with mggc-edge bench",
    ),
    "threads": Remark("more threads than cores", "leave out --threads, or give fewer"),
    "throttled": Remark(
        "the board lowered its clocks while it was measured, in too many of the processes to leave those out",
        "cool it, give it a stronger supply, or take a lower power mode (nvpmodel -m), and measure again",
        disturbs=True,
    ),
    "time_limit": Remark("bench.max_seconds ended it early", "raise bench.max_seconds, or take fewer pairs"),
    "unsettled": Remark(
        "the latency had not settled when its warm-up ended", "raise bench.warmup_seconds, and fix the clock frequency"
    ),
}


def disturbing(codes: Iterable[str]) -> tuple[str, ...]:
    """Return those codes that forbid a verdict, each once, in order of the alphabet."""
    return tuple(sorted({code for code in codes if WARNINGS[code].disturbs}))


def remark_json(code: str) -> dict[str, str]:
    """Return a warning as a JSON object, for who has only the document."""
    return {"code": code, "text": WARNINGS[code].text, "advice": WARNINGS[code].advice}
