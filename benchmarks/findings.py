"""Which warnings follow from samples, and from what the machine did meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mggc_edge.benchmarks.percentiles import enclosing_ranks
from mggc_edge.benchmarks.samples import Paired, ProcessSamples

FEW_PROCESSES, FEW_PAIRS = 5, 15  # a gate's first round has 20 pairs, of which a few may be left out
UNSETTLED_SHARE = 0.25  # of the processes
# Of the time of a run: above it, the processor that hands out the work is what takes the time, not the accelerator.
ENQUEUE_BOUND = 0.9
# Between pairs the busiest core's clock is this much lower in the slowest tenth of the moments than in the fastest.
MOST_MOVED = 0.05


def sample_warnings(processes: Sequence[ProcessSamples]) -> list[str]:
    """Return what the samples of one model warn of, all its processes together."""
    unsettled = sum(not process.settled for process in processes)
    samples = sum(len(pair) for process in processes for pair in process.used)
    noted = [one for process in processes for one in process.noted]
    queued, passed = sum(one.enqueue_ns or 0 for one in noted), sum(one.wall_ns for one in noted)
    few = _few([process.used for process in processes])
    return (
        ["few_samples"] * few
        + ["unsettled"] * (unsettled > UNSETTLED_SHARE * len(processes))
        + ["percentiles"] * (not few and enclosing_ranks(samples, 0.9) is None)
        + ["enqueue_bound"] * (passed > 0 and queued > ENQUEUE_BOUND * passed)
        + ["suspended"] * any(one.slept for one in noted)
    )


def few_in_common(pairs: Paired, first: Sequence[ProcessSamples], second: Sequence[ProcessSamples]) -> tuple[str, ...]:
    """Return the warning that two models have few pairs in common, where each has enough."""
    enough = not any(_few([process.used for process in side]) for side in (first, second))
    return ("few_samples",) if enough and _few(pairs.medians) else ()


def _few(pairs: Sequence[Sequence[object]]) -> bool:
    """Return whether the pairs of each process are few together, or of few processes."""
    return sum(map(bool, pairs)) < FEW_PROCESSES or sum(map(len, pairs)) < FEW_PAIRS


def clock_warnings(clocks: Sequence[int], throttled: tuple[int | None, int | None]) -> list[str]:
    """Return what the clocks warn of.

    Args:
        clocks: as they were read between pairs, in kHz.
        throttled: how often the processor had been slowed down for its heat, before and after.
    """
    before, after = throttled
    heat = before is not None and after is not None and after > before
    return ["frequency"] * clocks_moved(clocks) + ["heat"] * heat


def clocks_moved(clocks: Sequence[int]) -> bool:
    """Return whether clocks that were read at several moments, in kHz, say that the frequency moved."""
    if not clocks:
        return False
    slow, fast = np.quantile(clocks, (0.1, 0.9))
    return bool(slow < (1 - MOST_MOVED) * fast)
