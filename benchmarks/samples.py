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
        void: whether it is used in nothing, as its round was disturbed, see `mggc_edge.benchmarks.rounds`.
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
    void: bool = False

    @property
    def out(self) -> tuple[int, ...]:
        """The numbers of the pairs that estimates of this model do not use."""
        return tuple(range(len(self.pairs))) if self.void else self.left_out

    @property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """The pairs that estimates of this model use."""
        return tuple(samples for number, samples in enumerate(self.pairs) if number not in self.out)

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


@dataclass(frozen=True)
class Paired:
    """What a comparison of two models uses: the pairs in which neither was disturbed.

    Attributes:
        medians, means: per process pair, of both sides in ns, the median and the mean of the inferences of each pair.
        left_out: how many further pairs there are.
        throttled: how many of these are of processes in which clocks were lowered.
        enough: False where too few would remain: then all pairs are used, and allow no verdict.
        confirmed: whether every round is used.
    """

    medians: tuple[tuple[tuple[float, float], ...], ...]
    means: tuple[tuple[tuple[float, float], ...], ...]
    left_out: int
    throttled: int
    enough: bool
    confirmed: bool

    @property
    def count(self) -> int:
        """The pairs that are used."""
        return sum(map(len, self.medians))


def paired(first: Sequence[ProcessSamples], second: Sequence[ProcessSamples]) -> Paired:
    """Return what two models have in common: pair j of process i belongs to the same moment in both."""
    everything = list(zip(first, second, strict=True))
    both = [sides for sides in everything if not any(side.void for side in sides)]
    out = left_out([[number in {*a.left_out, *b.left_out} for number in range(len(a.pairs))] for a, b in both])
    enough = bool(both) and out is not None
    if out is None or not both:
        both, out = everything, tuple(() for _ in everything)
    kept = [
        [both_of for number, both_of in enumerate(zip(a.pairs, b.pairs, strict=True)) if number not in gone]
        for (a, b), gone in zip(both, out, strict=True)
    ]
    medians, means = (
        tuple(tuple((typical(a), typical(b)) for a, b in process) for process in kept if process)
        for typical in (median, fmean)
    )
    return Paired(
        medians=medians,
        means=means,
        left_out=sum(len(a.pairs) for a, _ in everything) - sum(map(len, kept)),
        throttled=sum(len(gone) for (a, _), gone in zip(both, out, strict=True) if a.throttled),
        enough=enough,
        confirmed=not any(side.void for sides in everything for side in sides),
    )
