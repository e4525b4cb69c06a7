"""Two models that were measured together: the ratio of their latencies, and what it allows to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mggc_edge.benchmarks.remarks import WARNINGS, disturbing, remark_json
from mggc_edge.benchmarks.stats import Ratio, Verdict


@dataclass(frozen=True)
class Comparison:
    """Two models that were measured in pairs.

    Attributes:
        a, b: their names; `ratio.value` says how many times as fast b is as a.
        ratio: latency of a : latency of b, with its intervals.
        margin: the smallest relative difference that matters.
        macs_ratio: MACs (true) of a : MACs of b; None where one is not known or 0.
        pairs: pairs of samples that the ratio comes from.
        left_out: further pairs that were left out because others disturbed them, or clocks were lowered.
        throttled: of these, pairs of processes in which clocks were lowered.
        codes: warnings of either side, and of the whole measurement.
        alike: whether both ran in the same engine and precision.
        rounds: of every round that was measured whether it is used, see `mggc_edge.benchmarks.rounds`.
    """

    a: str
    b: str
    ratio: Ratio
    margin: float
    macs_ratio: float | None
    pairs: int
    left_out: int = 0
    throttled: int = 0
    codes: tuple[str, ...] = ()
    alike: bool = True
    rounds: tuple[bool, ...] = (True,)

    @property
    def disturbed(self) -> tuple[str, ...]:
        """The warnings that forbid a verdict: what they name shifts all pairs alike, so no interval shows it."""
        return disturbing(self.codes)

    @property
    def verdict(self) -> Verdict:
        """What these samples allow to say about b: see `Ratio.verdict`; "inconclusive" where they are disturbed."""
        return "inconclusive" if self.disturbed else self.ratio.verdict(self.margin)

    @property
    def reason(self) -> str | None:
        """Why the verdict is "inconclusive"; None where it is not."""
        if self.verdict != "inconclusive":
            return None
        if self.disturbed:
            return "; ".join(WARNINGS[code].text for code in self.disturbed)
        if self.ratio.ci99 is None:
            return "a single process of each was measured"
        return f"the {self.level} % interval is too wide"

    @property
    def level(self) -> str:
        """The level of the interval that the verdict goes by, in per cent: "99", "99.67"."""
        return f"{100 * self.ratio.level:.4g}"

    @property
    def implausible(self) -> bool:
        """Whether more speed was gained than multiplications were saved: the realisation in per cent is above 100.

        Another precision, or engine, may well bring more than that.
        """
        macs, real = self.macs_ratio, self.realisation
        return self.alike and macs is not None and real is not None and macs > 1 and round(real, 2) > 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of either side and of the comparison itself, each once."""
        return tuple(sorted({*self.codes, *(["implausible"] if self.implausible else [])}))

    @property
    def realisation(self) -> float | None:
        """The part of the saved work that became speed: ratio of latencies / ratio of MACs."""
        return None if self.macs_ratio is None else self.ratio.value / self.macs_ratio

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `comparisons`."""
        return {
            "a": self.a,
            "b": self.b,
            "ratio": self.ratio.value,
            "ci95": listed(self.ratio.ci95),
            "ci99": listed(self.ratio.ci99),
            "level": self.ratio.level,
            "interval": listed(self.ratio.interval),
            "verdict": self.verdict,
            "reason": self.reason,
            "disturbed": list(self.disturbed),
            "margin": self.margin,
            "minimum_detectable_effect": self.ratio.minimum_detectable_effect,
            "macs_ratio": self.macs_ratio,
            "realisation": self.realisation,
            "pairs": self.pairs,
            "pairs_left_out": self.left_out,
            "pairs_throttled": self.throttled,
            "processes": self.ratio.processes,
            "warnings": [remark_json(code) for code in self.warnings],
        }


def listed(interval: Sequence[float] | None) -> list[float] | None:
    """Return an interval as JSON has it."""
    return None if interval is None else list(interval)
