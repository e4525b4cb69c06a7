"""How long a measurement lasts, and which difference matters in it: what the settings `bench.*` say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from mggc_edge.settings import Settings


class Arguments(TypedDict):
    """Arguments of `mggc_edge.benchmarks.harness.measure`, by name."""

    pairs: int
    processes: int
    max_seconds: float
    margin: float
    warmup_seconds: float


@dataclass(frozen=True)
class Extent:
    """How much is measured; every attribute is an argument of `mggc_edge.benchmarks.harness.measure`.

    Attributes:
        pairs, processes: of samples, and fresh ones that these are spread over.
        max_seconds: after which a measurement ends with what it has.
        margin: the smallest relative difference that matters.
        warmup_seconds: that a warm-up lasts at least.
    """

    pairs: int
    processes: int
    max_seconds: float
    margin: float
    warmup_seconds: float

    @classmethod
    def of(cls, settings: Settings, pairs: int | None = None) -> Extent:
        """Return what the settings say; `pairs`: another number of them."""
        return cls(
            settings["bench.pairs"] if pairs is None else pairs,
            settings["bench.processes"],
            settings["bench.max_seconds"],
            settings["bench.margin"],
            settings["bench.warmup_seconds"],
        )

    def part(self, fraction: float, *, least_pairs: int = 4, least_processes: int = 2) -> Extent:
        """Return a shorter measurement, which is enough to tell what is far apart."""
        pairs, processes = int(self.pairs * fraction), int(self.processes * fraction)
        return replace(
            self,
            pairs=min(self.pairs, max(least_pairs, pairs)),
            processes=min(self.processes, max(least_processes, processes)),
            max_seconds=self.max_seconds * fraction,
        )

    def arguments(self) -> Arguments:
        """Return all of it as arguments of `measure`."""
        return {
            "pairs": self.pairs,
            "processes": self.processes,
            "max_seconds": self.max_seconds,
            "margin": self.margin,
            "warmup_seconds": self.warmup_seconds,
        }
