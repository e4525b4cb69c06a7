"""What one process measured of one model, and which of it two models have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from mggc_edge.benchmarks.disturbance import Noted, left_out

MS = 1e6  # nanoseconds


@dataclass(frozen=True)
class ProcessSamples:
    """What one process measured.

    Attributes:
        load_ns, first_ns: time to open the model, and of its first inference.
        warmup_runs, warmup_ns, settled: untimed runs, how long they took, whether the latency had settled after them.
        pairs: per pair the time of each inference in ns; the pair's latency is their median.
        rss_before_bytes, rss_peak_bytes: memory of the process before the model was opened, and at most.
        noted: per pair what the kernel counted meanwhile; empty where nobody noted it.
        left_out: numbers of the pairs in which others disturbed this model, or clocks were lowered: no estimate of it,
            and no comparison with it, uses them, see `mggc_edge.benchmarks.disturbance`.
        throttled: what shows that the board lowered its clocks meanwhile, see `mggc_edge.benchmarks.agent.heat`.
        cores: numbers of the cores that it was kept on; None: it was not kept on any.
        round: the number of the round that it is of, see `mggc_edge.benchmarks.rounds`.
        void: whether it is used in nothing, as its round was disturbed.
    """

    load_ns: int
    first_ns: int
    warmup_runs: int
    warmup_ns: int
    settled: bool
    pairs: tuple[tuple[int, ...], ...]
    rss_before_bytes: int | None
    rss_peak_bytes: int | None
    noted: tuple[Noted, ...] = ()
    left_out: tuple[int, ...] = ()
    throttled: tuple[str, ...] = ()
    cores: tuple[int, ...] | None = None
    round: int = 0
    void: bool = False

    @property
    def out(self) -> tuple[int, ...]:
        """The numbers of the pairs that estimates of this model do not use."""
        return tuple(range(len(self.pairs))) if self.void else self.left_out

    @property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """The pairs that estimates of this model use."""
        out = set(self.out)
        return tuple(samples for number, samples in enumerate(self.pairs) if number not in out)

    @property
    def latencies_ns(self) -> tuple[float, ...]:
        """The latency of every pair that estimates of this model use."""
        return tuple(median(samples) for samples in self.used)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; the samples themselves stand in the run's `samples_ns`, in the order of the pairs.

        So do the lists of what the kernel counted; `left_out` has numbers of pairs, from 0.
        """
        return {
            "load_ms": self.load_ns / MS,
            "first_inference_ms": self.first_ns / MS,
            "warmup": {"runs": self.warmup_runs, "seconds": self.warmup_ns / 1e9, "settled": self.settled},
            "pairs": len(self.pairs),
            "rss_before_bytes": self.rss_before_bytes,
            "rss_peak_bytes": self.rss_peak_bytes,
            "left_out": list(self.out),
            "throttled": list(self.throttled),
            "cores": None if self.cores is None else list(self.cores),
            "wall_ns": [one.wall_ns for one in self.noted],
            "cpu_ns": [one.cpu_ns for one in self.noted],
            "involuntary_switches": [one.involuntary_switches for one in self.noted],
            "waited_ns": [one.waited_ns for one in self.noted],
            "suspended_ns": [one.suspended_ns for one in self.noted],
        }


def used_rounds(processes: Sequence[ProcessSamples]) -> tuple[bool, ...]:
    """Return of every round whether estimates of a model use it."""
    return tuple(not void for _, void in sorted({(process.round, process.void) for process in processes}))


@dataclass(frozen=True)
class Paired:
    """What a comparison of two models uses: the pairs in which neither was disturbed.

    Attributes:
        medians, means: per process pair, of both sides in ns, the median and the mean of the inferences of each pair.
        left_out: how many further pairs there are.
        throttled: how many of these are of processes in which clocks were lowered.
        rounds: whether each round is used.
        codes: warnings: what disturbed so many pairs that too few would remain, and all are used instead.
    """

    medians: tuple[tuple[tuple[float, float], ...], ...]
    means: tuple[tuple[tuple[float, float], ...], ...]
    left_out: int
    throttled: int
    rounds: tuple[bool, ...]
    codes: tuple[str, ...]

    @property
    def count(self) -> int:
        """The pairs that are used."""
        return sum(map(len, self.medians))


def paired(first: Sequence[ProcessSamples], second: Sequence[ProcessSamples], *, whole: bool = False) -> Paired:
    """Return what two models have in common: pair j of process i belongs to the same moment in both.

    A round in which too few pairs would remain, see `mggc_edge.benchmarks.disturbance.left_out`, is left out where
    there is another one.

    Args:
        first, second: the processes of both.
        whole: use everything, as it allows no verdict anyway.
    """
    both = list(zip(first, second, strict=True))
    marked = [{*a.left_out, *b.left_out} for a, b in both]
    gone: dict[int, set[int]] = {}  # by the number of a process that is used, the pairs that are not
    rounds: list[bool] = []
    for number in sorted({one.round for one in first}):
        of_it = [index for index, (a, _) in enumerate(both) if a.round == number]
        void = any(side.void for index in of_it for side in both[index])
        too_few = left_out([[pair in marked[at] for pair in range(len(first[at].pairs))] for at in of_it]) is None
        rounds.append(not (void or too_few))
        if rounds[-1]:
            gone |= {index: marked[index] for index in of_it}
    codes: set[str] = set()
    if whole or not gone:
        causes = {"throttled" if a.throttled else "preempted" for (a, _), out in zip(both, marked, strict=True) if out}
        codes = set() if whole else causes or {"preempted"}
        gone, rounds = {index: set() for index in range(len(both))}, [True] * len(rounds)
    kept = [
        [sides for pair, sides in enumerate(zip(*(side.pairs for side in both[index]), strict=True)) if pair not in out]
        for index, out in gone.items()
    ]
    medians, means = (
        tuple(tuple((typical(a), typical(b)) for a, b in process) for process in kept if process)
        for typical in (median, fmean)
    )
    return Paired(
        medians=medians,
        means=means,
        left_out=sum(len(one.pairs) for one in first) - sum(map(len, kept)),
        throttled=sum(len(out) for index, out in gone.items() if first[index].throttled),
        rounds=tuple(rounds),
        codes=tuple(sorted(codes)),
    )
