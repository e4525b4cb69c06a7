"""Where the time of a model goes, by classes of operators, and the bound that the machine sets.

The bound of a class is what its multiplications take at the most that this engine was seen to multiply in a second,
plus what its tensors take at the speed of memory: (MACs / peak) + (bytes / bandwidth). Tensors that stay in a cache
move faster than that, so a class can be below its bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mggc_edge.benchmarks.profile_nodes import CLASS_OF, CLASSES, NodeTime
from mggc_edge.errors import InputError


@dataclass(frozen=True)
class Peak:
    """The most that a machine was seen to do, with so many threads.

    Attributes:
        macs_per_second: of convolutions in one engine and precision.
        bytes_per_second: read and written, of arrays larger than the caches.
    """

    macs_per_second: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        if not (0 < self.macs_per_second < math.inf and 0 < self.bytes_per_second < math.inf):
            raise InputError(
                f"no machine has a peak of {self.macs_per_second:g} MACs and {self.bytes_per_second:g} bytes a second"
            )

    def to_json(self) -> dict[str, float]:
        """Return a JSON object."""
        return {"macs_per_second": self.macs_per_second, "bytes_per_second": self.bytes_per_second}


@dataclass(frozen=True)
class ClassTime:
    """One class of operators.

    Attributes:
        kind: a key of `CLASSES`.
        nodes: how many nodes of it the engine runs.
        ms, time_share: their time in a run, and its part of the time of all nodes.
        macs, macs_share: their multiplications, and their part of all; None where not known.
        size_bytes: of what they read and write.
        bound_ms: what that takes at the machine's peak; None where either is not known.
        peak_share: multiplications a second as a part of the peak; None likewise, and where there are none.
    """

    kind: str
    nodes: int
    ms: float
    time_share: float
    macs: int | None
    macs_share: float | None
    size_bytes: int
    bound_ms: float | None
    peak_share: float | None

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `classes`."""
        return {
            "class": self.kind,
            "nodes": self.nodes,
            "ms": self.ms,
            "time_share": self.time_share,
            "macs": self.macs,
            "macs_share": self.macs_share,
            "bytes": self.size_bytes,
            "bound_ms": self.bound_ms,
            "peak_share": self.peak_share,
        }


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes.

    Attributes:
        model: its name.
        runs: how many runs the times come from.
        run_ms: the median of these runs, which counting makes longer than they are.
        nodes: what the engine ran; at least one that takes time.
        macs: convolution of the file -> (ONNX operator, MACs); None where not known.
        peak: None where it was not measured.
    """

    model: str
    runs: int
    run_ms: float
    nodes: tuple[NodeTime, ...]
    macs: Mapping[str, tuple[str, int]] | None
    peak: Peak | None

    def __post_init__(self) -> None:
        if not self.nodes_ms > 0:
            raise InputError(f"no node of '{self.model}' takes any time")

    @property
    def nodes_ms(self) -> float:
        """The time of all nodes in a run."""
        return sum(node.ms for node in self.nodes)

    @property
    def classes(self) -> tuple[ClassTime, ...]:
        """Every class that has a node or multiplies, the one that takes the most time first."""
        macs = self._macs_of_classes()
        total = sum(macs.values()) if macs is not None else 0
        rows = [self._class(kind, None if macs is None else macs.get(kind, 0), total) for kind in CLASSES]
        return tuple(sorted((row for row in rows if row.nodes or row.macs), key=lambda row: -row.ms))

    @property
    def bound_ms(self) -> float | None:
        """What all multiplications and bytes take at the peak; None where either is not known."""
        bounds = [row.bound_ms for row in self.classes]
        return sum(bound for bound in bounds if bound is not None) if None not in bounds else None

    @property
    def between(self) -> tuple[tuple[str, float], ...]:
        """The classes that take longer than their bound and by how many ms, the farthest first."""
        gaps = [(row.kind, row.ms - row.bound_ms) for row in self.classes if row.bound_ms is not None]
        return tuple(sorted((gap for gap in gaps if gap[1] > 0), key=lambda gap: -gap[1]))

    def to_json(self) -> dict[str, Any]:
        """Return what `bench --json` has as the `profile` of a run."""
        rows = self.classes
        return {
            "runs": self.runs,
            "run_ms": self.run_ms,
            "nodes_ms": self.nodes_ms,
            "macs_executed": None if self.macs is None else sum(macs for _, macs in self.macs.values()),
            "bytes": sum(row.size_bytes for row in rows),
            "peak": None if self.peak is None else self.peak.to_json(),
            "bound_ms": self.bound_ms,
            "classes": [row.to_json() for row in rows],
        }

    def _macs_of_classes(self) -> dict[str, int] | None:
        """Return the MACs of every class: of that which runs a convolution, or else of its operator's own."""
        if self.macs is None:
            return None
        run_by = {layer: node.kind for node in self.nodes for layer in node.layers}
        found: dict[str, int] = {}
        for name, (op, macs) in self.macs.items():
            kind = run_by.get(name, CLASS_OF.get(op, "other"))
            found[kind] = found.get(kind, 0) + macs
        return found

    def _class(self, kind: str, macs: int | None, total: int) -> ClassTime:
        nodes = [node for node in self.nodes if node.kind == kind]
        ms, size = sum(node.ms for node in nodes), sum(node.size_bytes for node in nodes)
        peak = self.peak
        bound = share = None
        if peak is not None and macs is not None:
            bound = 1e3 * (macs / peak.macs_per_second + size / peak.bytes_per_second)
            share = macs / (ms / 1e3) / peak.macs_per_second if macs and ms else None
        macs_share = macs / total if macs is not None and total else None
        return ClassTime(kind, len(nodes), ms, ms / self.nodes_ms, macs, macs_share, size, bound, share)
