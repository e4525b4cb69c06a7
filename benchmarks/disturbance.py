"""What disturbs a measurement without showing in its interval, and which pairs are left out because of it.

A process that shares its cores is stopped when its slice of time ends. A sample that is longer than the slice is
stopped in every pair, one that is shorter hardly ever: the long model looks slower than it is, by the same factor in
every pair, so that neither order nor interval shows it. The kernel knows. The worker notes around the timed inferences
of a pair what the kernel counted, and a pair is judged by these counts, never by its latencies.

Leaving out is sound for both sides of a comparison alike, within these limits. It uses a pair as a whole or not at all,
on the same grounds whichever side was stopped, so that what remains are moments in which neither was; there, both take
their own time. If stops come at random at a rate r, a sample of duration d stays with probability exp(-r d): long ones
are left out more often. That shifts a side's mean duration by the fraction r d cv^2, where cv is its own spread. As at
least half of the pairs must remain, r d is at most ln 2: the shift is 0.03 % at a spread of 2 %, and 0.7 % at 10 %, far
below the margin. Where fewer remain, nothing is left out, and no verdict is given. Of several models each comparison
uses what is left of its own two: who was stopped beside them has no part in it. What a neighbor does to caches, memory
and clock frequency stays in the samples either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

# Of the time of a sample: what is lost by one side alone shifts the ratio by as much, and 2 % are less than half of the
# smallest difference that matters (5 % by default). A neighbor on the same core takes up to 50 %.
MOST_LOST = 0.02
# Per second of processor time, where only switches are known: the turn of a process lasts 3 to 10 ms where others wait
# for the core, so it is stopped 100 times or more. Measured: 250 to 350 beside 1 to 8 busy processes, and 15 to 60
# on a core that nobody else used for long.
MOST_SWITCHES = 90.0
LEAST_SWITCHES = 2  # a single one in a short sample is no rate
MOST_APART_NS = 10_000_000  # no machine falls asleep and wakes up faster
LEAST_LEFT = 0.5  # of the pairs, and of the processes, for the others to be left out


@dataclass(frozen=True)
class Noted:
    """What the kernel counted while the inferences of one sample were timed; None where it does not say.

    Attributes:
        wall_ns: time that passed.
        cpu_ns: processor time of all threads of the process.
        involuntary_switches: how often a thread was stopped although it could have gone on.
        waited_ns: time for which threads could have run and had no core, summed over threads.
        suspended_ns: time for which the machine slept since the sample before; no other clock counts it.
        enqueue_ns: time until the work was handed to an accelerator that goes on by itself, of the same runs.
    """

    wall_ns: int
    cpu_ns: int | None = None
    involuntary_switches: int | None = None
    waited_ns: int | None = None
    suspended_ns: int | None = None
    enqueue_ns: int | None = None

    @classmethod
    def from_answer(cls, noted: dict[str, Any]) -> Noted:
        """Return what a worker noted; one that knows less leaves it out."""
        counted = (noted.get(field.name) for field in fields(cls)[1:])
        return cls(noted["wall_ns"], *counted)

    @classmethod
    def together(cls, parts: Sequence[Noted]) -> Noted:
        """Return what was counted in the parts of a sample: the sums, None where a part does not say."""
        wall, *counted = zip(*(astuple(part) for part in parts), strict=True)
        return cls(sum(wall), *(None if None in each else sum(each) for each in counted))

    @property
    def slept(self) -> bool:
        """Whether the machine slept: the clocks lie apart by more than what passes between two readings."""
        return (self.suspended_ns or 0) > MOST_APART_NS

    def lost(self, threads: int) -> float | None:
        """Return the fraction of the time that was lost to others, 0 and up; None where it is not known.

        It is the time waited for a core. Without that, one thread that never waits for another (`threads` of 1) lost
        what is not its processor time; several wait for each other too, so nothing follows.
        """
        if self.wall_ns <= 0:
            return None
        if self.waited_ns is not None:
            return self.waited_ns / self.wall_ns
        if self.cpu_ns is not None and threads == 1:
            return max(0.0, 1 - self.cpu_ns / self.wall_ns)
        return None

    def disturbed(self, threads: int) -> bool:
        """Return whether others took more of the time than a verdict can bear, or the machine slept.

        Where the lost time is not known, the involuntary switches decide; where nothing is known, it is False.
        """
        if self.slept:
            return True
        lost = self.lost(threads)
        if lost is not None:
            return lost > MOST_LOST
        switches = self.involuntary_switches or 0
        ran_ns = self.wall_ns if self.cpu_ns is None else self.cpu_ns
        return switches >= LEAST_SWITCHES and switches > MOST_SWITCHES * ran_ns / 1e9


def left_out(disturbed: Sequence[Sequence[bool]]) -> tuple[tuple[int, ...], ...] | None:
    """Return which pairs of each process are left out of the estimates of a model, or of two together, by number.

    Args:
        disturbed: per process and pair, whether the model, or one of those that are compared, was disturbed in it.

    Returns:
        The numbers of the disturbed pairs, per process; None where too few pairs would remain: less than half of them,
        or pairs of less than half of the processes, or of a single one where there were several.
    """
    kept = [sum(not pair for pair in process) for process in disturbed]
    total, processes = sum(map(len, disturbed)), len(kept)
    remaining = sum(count > 0 for count in kept)
    if sum(kept) < LEAST_LEFT * total or remaining < max(min(2, processes), LEAST_LEFT * processes):
        return None
    return tuple(tuple(number for number, pair in enumerate(process) if pair) for process in disturbed)
