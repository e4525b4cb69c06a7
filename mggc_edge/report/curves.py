"""Curves of a run: `logs/metrics.jsonl` of any length, thinned while it is read.

A curve is kept as at most 298 buckets of neighbouring steps, each with its lowest, highest and mean value. When they
are full, every two become one. So memory does not grow with the file, and no extreme is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mggc_edge.errors import ArtifactError

MAX_BUCKETS = 298  # even; with the first and the last point at most 598 points a curve
MAX_LINE_BYTES = 2**20
MAX_LINES = 5_000_000  # a longer log is read so far
LARGEST = 1e300  # what is beyond cannot be put on an axis
MAX_STAGES, MAX_CURVES = 12, 40

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A number over the steps of a stage.

    Attributes:
        name: key in the log; of a held-out measurement "held_out.psnr".
        points: (step, value), rising in step, at most 598; first, last, lowest and highest are those of the log.
        means: (step, mean of a stretch), at most 298; empty where nothing was thinned.
    """

    name: str
    points: tuple[Point, ...]
    means: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Stage:
    """The curves of one stage of the job, in the order in which the log first names them."""

    name: str
    curves: tuple[Curve, ...]

    def curve(self, name: str) -> Curve | None:
        """Return the curve of this name."""
        return next((curve for curve in self.curves if curve.name == name), None)


@dataclass(frozen=True)
class Log:
    """The stages of a log, in the order in which they begin; `whole`: the log was read to its end."""

    stages: tuple[Stage, ...] = ()
    whole: bool = True


@dataclass
class _Bucket:
    low: Point
    high: Point
    first_step: float
    last_step: float
    total: float
    count: int

    def join(self, other: _Bucket) -> None:
        self.low = min(self.low, other.low, key=lambda point: point[1])
        self.high = max(self.high, other.high, key=lambda point: point[1])
        self.last_step = other.last_step
        self.total += other.total
        self.count += other.count


@dataclass
class Thinner:
    """Takes points in rising order and keeps the first, the last and two of every bucket."""

    buckets: list[_Bucket] = field(default_factory=list)
    first: Point | None = None
    last: Point | None = None
    size: int = 1  # points that a full bucket holds

    def add(self, step: float, value: float) -> None:
        """Take a point; one that does not come after the last is left out (a resumed run repeats steps)."""
        if self.last is not None and step <= self.last[0]:
            return
        point = (step, value)
        self.first, self.last = self.first or point, point
        if self.buckets and self.buckets[-1].count < self.size:
            self.buckets[-1].join(_Bucket(point, point, step, step, value, 1))
            return
        if len(self.buckets) == MAX_BUCKETS:
            for left, right in zip(self.buckets[::2], self.buckets[1::2], strict=True):
                left.join(right)
            self.buckets = self.buckets[::2]
            self.size *= 2
        self.buckets.append(_Bucket(point, point, step, step, value, 1))

    def curve(self, name: str) -> Curve:
        """Return what was kept."""
        ends = {point for point in (self.first, self.last) if point is not None}
        points = sorted(ends.union(*({bucket.low, bucket.high} for bucket in self.buckets)))
        means = (((b.first_step + b.last_step) / 2, b.total / b.count) for b in self.buckets)
        return Curve(name, tuple(points), () if self.size == 1 else tuple(means))


def read_log(path: Path) -> Log:
    """Return the stages of a log in JSON lines; none where there is no log.

    A last line that was cut off is left out: a job may have been stopped while it wrote. So are values that are no
    numbers below 1e300, and what comes after MAX_LINES lines.

    Raises:
        ArtifactError: another line is no JSON object, or a line or the number of stages is beyond all bounds.
    """
    found: dict[str, dict[str, Thinner]] = {}
    whole = True
    for number, line in _lines(path):
        if number > MAX_LINES:
            whole = False
            break
        name = line.get("stage")
        if not isinstance(name, str):
            raise ArtifactError(f"'{path}' is damaged: line {number} names no stage")
        if name not in found and len(found) == MAX_STAGES:
            raise ArtifactError(f"'{path}' is damaged: it has more than {MAX_STAGES} stages")
        curves = found.setdefault(name, {})
        step = _finite(line.get("step"))
        if step is None:
            continue
        for key, value in _values(line):
            if key in curves or len(curves) < MAX_CURVES:
                curves.setdefault(key, Thinner()).add(step, value)
    stages = (
        Stage(name, tuple(thinner.curve(key) for key, thinner in curves.items()))
        for name, curves in found.items()
        if curves
    )
    return Log(tuple(stages), whole)


def _values(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if key == "held_out" and isinstance(value, dict):
            inner = [(f"held_out.{name}", number) for name, number in value.items()]
        else:
            inner = [(key, value)]
        for name, number in inner:
            finite = _finite(number)
            if finite is not None and name != "step":
                yield name, finite


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < LARGEST else None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES):
                number += 1
                whole = raw.endswith(b"\n")
                if len(raw) == MAX_LINE_BYTES:
                    raise ArtifactError(f"'{path}' is damaged: line {number} is longer than a line of any log")
                try:
                    line: object = json.loads(raw)
                except (ValueError, RecursionError) as error:
                    if not whole:
                        return
                    raise ArtifactError(f"'{path}' is damaged: line {number} is no JSON ({error})") from error
                if not isinstance(line, dict):
                    raise ArtifactError(f"'{path}' is damaged: line {number} is no JSON object")
                yield number, line
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}") from error
