"""What power a Jetson takes: its rails, what each of them means, samples of them in time, and energy.

A rail is a place on the board where a monitor (INA3221, on Thor INA238 as well) measures voltage and current. Most
boards have one at the input, through which all of it flows: the other rails are parts of it, and none is added to it.
AGX Orin and AGX Xavier have none: there the rails of the module are summed up, and that sum is no board power. Where
nothing is known of the rails there is no total.

Energy is the integral of power by the trapezoidal rule. Values are what the monitor says at that moment; it averages
over its own interval, which is recorded. Python 3.8 and the standard library, nothing of mggc_edge: the agent carries
this file to a board.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterator, Mapping, Sequence, Tuple

from .files import in_order, number, text

# A moment in ns, and the power of every rail in mW.
Sample = Tuple[int, Dict[str, float]]

INPUTS = {
    "VIN": "input of the board, its carrier included",  # of Thor, by an INA238 on the carrier
    "VDD_IN": "input of the module, through which all of it is fed",
    "POM_5V_IN": "input of the board",
}
# Rails that are fed side by side, so that they may be summed; each set is a board's. What is left out is a part of one
# of them: the memory of AGX Orin (VDDQ_VDD2_1V8AO) is fed from VIN_SYS_5V0.
MODULE_RAILS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor, whose carrier has no monitor
)
SUM = "sum of the rails of the module, which is not what the board takes"
NO_TOTAL = "nothing is known of how these rails are fed, so that none are summed"
LEAST_HZ, MOST_HZ = 10.0, 100.0
FEW_LINES = 6  # of tegrastats, in which rails are looked for: in a container it goes on for ever without any
_LINE = re.compile(r"\b([A-Z][A-Z0-9_]{1,30}) (-?\d+)(?:mW)?/(-?\d+)(?:mW)?(?=\s|$)")
_UNPOWERED = ("RAM", "SWAP", "IRAM")  # "RAM 2345/7620MB" in the same line


@dataclass(frozen=True)
class Meaning:
    """What of the rails is the total.

    Attributes:
        kind: "input", "sum" or None, where there is no total.
        rails: those that the total is.
        text: the same in words.
    """

    kind: str | None
    rails: tuple[str, ...]
    text: str


def meaning(names: Sequence[str]) -> Meaning:
    """Return what of these rails is the total."""
    for name, words in INPUTS.items():
        if name in names:
            return Meaning("input", (name,), f"{name}: {words}")
    for rails in MODULE_RAILS:
        if set(rails) <= set(names):
            return Meaning("sum", rails, f"{' + '.join(rails)}: {SUM}")
    return Meaning(None, (), NO_TOTAL)


@dataclass(frozen=True)
class Rail:
    """A rail, and where it is read: its power itself, or voltage and current.

    Attributes:
        name: its label.
        chip: of the monitor.
        power: a file of mW, or, for `power_scale` of 0.001, of uW; None: volts times amperes.
        volts, amperes: files of mV and mA.
        interval_ms, averaged: the monitor's own interval, and how many of its values it averages; None where not known.
    """

    name: str
    chip: str
    power: Path | None = None
    power_scale: float = 1.0
    volts: Path | None = None
    amperes: Path | None = None
    interval_ms: int | None = None
    averaged: int | None = None

    def read(self) -> float | None:
        """Return its power in mW; None where it cannot be read just now. A rail that is off can be slightly below 0."""
        if self.power is not None:
            value = number(self.power)
            return None if value is None else value * self.power_scale
        if self.volts is None or self.amperes is None:
            return None
        volts, amperes = number(self.volts), number(self.amperes)
        return None if volts is None or amperes is None else volts * amperes / 1000

    def to_json(self) -> dict[str, Any]:
        """Return what is known of it as a JSON object."""
        return {"name": self.name, "chip": self.chip, "interval_ms": self.interval_ms, "averaged": self.averaged}


def rails(root: Path = Path("/")) -> list[Rail]:
    """Return the rails that can be read here, in the order of monitors and channels, no name twice."""
    found: dict[str, Rail] = {}
    for rail in (*_of_hwmon(root), *_of_iio(root)):
        found.setdefault(rail.name, rail)
    return [rail for rail in found.values() if rail.read() is not None]


def _of_hwmon(root: Path) -> Iterator[Rail]:
    """Yield the rails of monitors that Linux keeps below hwmon."""
    for folder in in_order((root / "sys/class/hwmon").glob("hwmon*")):
        chip = text(folder / "name")
        if not re.match(r"ina\d", chip):
            continue
        interval, averaged = number(folder / "update_interval"), number(folder / "samples")
        labels = in_order(folder.glob("in*_label"))
        for path in labels:
            channel = re.sub(r"\D", "", path.name)
            name = text(path)
            # Of an INA3221, channel 7 is the sum of its shunts, and it has no current of its own.
            amperes = folder / f"curr{channel}_input"
            if name in ("", "NC") or not amperes.is_file() or text(folder / f"in{channel}_enable") == "0":
                continue
            volts = folder / f"in{channel}_input"
            yield Rail(name, chip, volts=volts, amperes=amperes, interval_ms=interval, averaged=averaged)
        if not labels and text(folder / "label") and (folder / "power1_input").is_file():  # of one channel, in uW
            power = folder / "power1_input"
            yield Rail(text(folder / "label"), chip, power, 1e-3, interval_ms=interval, averaged=averaged)


def _of_iio(root: Path) -> Iterator[Rail]:
    """Yield the rails as L4T 32 has them: power in mW, below iio."""
    for folder in in_order((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio*device*")):
        for path in in_order(folder.glob("rail_name_*")):
            power = folder / f"in_power{path.name.rsplit('_', 1)[1]}_input"
            if text(path) not in ("", "NC") and power.is_file():
                yield Rail(text(path), "ina3221", power=power)


class Sysfs:
    """Rails as the kernel shows them, read at a steady rate."""

    name = "sysfs"

    def __init__(self, found: Sequence[Rail], clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.rails = tuple(rail.name for rail in found)
        self._found, self._clock = found, clock

    def samples(self, hz: float, stop: threading.Event) -> Iterator[Sample]:
        """Yield samples until `stop` is set, the last one after it. A rail that cannot be read is left out of one."""
        tick, due = int(1e9 / hz), self._clock()
        while True:
            ended = stop.is_set()
            before = self._clock()
            values = {rail.name: rail.read() for rail in self._found}
            known = {name: value for name, value in values.items() if value is not None}
            if known:
                yield (before + self._clock()) // 2, known
            if ended:
                return
            due += tick
            late = self._clock() - due
            if late > tick:  # what was missed is not made up for
                due += late
            stop.wait(max(0.0, -late / 1e9))


class Tegrastats:
    """Rails as NVIDIA's tegrastats prints them, where the kernel's own files are not to be had, as in a container.

    "VDD_IN 5012mW/4890mW" is what it is now, and the average since tegrastats began, which is not used. Moments are
    those at which lines arrive.
    """

    name = "tegrastats"

    def __init__(self, program: Path, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._program, self._clock = program, clock
        self.rails = self._names()

    def samples(self, hz: float, stop: threading.Event) -> Iterator[Sample]:
        """Yield samples until `stop` is set."""
        with contextlib.closing(self._lines(hz)) as lines:
            for moment, values in lines:
                if values:
                    yield moment, values
                if stop.is_set():
                    return

    def _lines(self, hz: float) -> Generator[Sample, None, None]:
        """Yield the rails of every line, which may have none; tegrastats never ends by itself."""
        with self._started(hz) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    yield self._clock(), rails_of_line(line.decode("ascii", "replace"))
            finally:
                process.kill()

    def _started(self, hz: float) -> subprocess.Popen[bytes]:
        command = [str(self._program), "--interval", str(max(1, round(1000 / hz)))]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def _names(self) -> tuple[str, ...]:
        """Return the rails of the first line that has any, of a few."""
        try:
            with contextlib.closing(self._lines(LEAST_HZ)) as lines:
                return next((tuple(values) for _, values in islice(lines, FEW_LINES) if values), ())
        except OSError:
            return ()


def rails_of_line(line: str) -> dict[str, float]:
    """Return the rails in a line of tegrastats, in mW: of every one the first number, which is the present value."""
    return {name: float(now) for name, now, _ in _LINE.findall(line) if name not in _UNPOWERED}


def source(root: Path = Path("/")) -> Sysfs | Tegrastats | None:
    """Return where the rails of this machine are read; None where there are none."""
    found = rails(root)
    if found:
        return Sysfs(found)
    program = root / "usr/bin/tegrastats"
    if program.is_file():
        spoken = Tegrastats(program)
        if spoken.rails:
            return spoken
    return None


class Sampler:
    """Takes samples in a thread of its own from entering to leaving.

    Args:
        source: where rails are read.
        hz: samples a second, 10 to 100.

    Attributes:
        samples: what was taken so far.
    """

    def __init__(self, source: Sysfs | Tegrastats, hz: float = 20.0) -> None:
        if not LEAST_HZ <= hz <= MOST_HZ:
            raise ValueError(f"power is sampled {LEAST_HZ:g} to {MOST_HZ:g} times a second, not {hz:g}")
        self.samples: list[Sample] = []
        self._source, self._hz, self._stop = source, hz, threading.Event()
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        for sample in self._source.samples(self._hz, self._stop):
            self.samples.append(sample)


@dataclass(frozen=True)
class Window:
    """What a stretch of time took.

    Attributes:
        seconds: how long it was.
        samples: that lie in it.
        gap_seconds: the longest time in it without a sample of a rail of the total, or of any where there is no total.
        mean_mw: mean power of every rail, in mW.
        total_mw: mean of the total; None where there is no total.
        total_rails: whose sum that is.
    """

    seconds: float
    samples: int
    gap_seconds: float
    mean_mw: Mapping[str, float] = field(default_factory=dict)
    total_mw: float | None = None
    total_rails: Sequence[str] = ()


def window(samples: Sequence[Sample], start_ns: int, end_ns: int) -> Window:
    """Return what the time between two moments took, of samples in the order of time.

    A rail counts where two samples have it: one that could not be read for a moment is still what it is, and the total
    stays the same sum. Power is interpolated between the samples on either side; where there is none beyond an end, the
    nearest one's holds.

    Raises:
        ValueError: fewer than two samples lie there, so that there is nothing to integrate.
    """
    inside = [sample for sample in samples if start_ns <= sample[0] <= end_ns]
    if end_ns <= start_ns or len(inside) < 2:
        raise ValueError(f"{len(inside)} samples of power are too few for an energy")
    read = dict.fromkeys(name for _, rails in inside for name in rails)
    moments = {name: [moment for moment, values in inside if name in values] for name in read}
    names = [name for name, known in moments.items() if len(known) >= 2]
    means = {name: _integral(samples, name, start_ns, end_ns) / (end_ns - start_ns) for name in names}
    rails_of_total = meaning(names).rails
    total = sum(means[name] for name in rails_of_total) if rails_of_total else None
    curves = [moments[name] for name in rails_of_total] or [[moment for moment, _ in inside]]
    ends = [[start_ns, *curve, end_ns] for curve in curves]
    gap = max(after - before for curve in ends for before, after in zip(curve, curve[1:])) / 1e9
    return Window((end_ns - start_ns) / 1e9, len(inside), gap, means, total, rails_of_total)


def _integral(samples: Sequence[Sample], name: str, start_ns: int, end_ns: int) -> float:
    """Return the trapezoidal integral of a rail, in mW ns."""
    points = [(moment, values[name]) for moment, values in samples if name in values]
    inside = [point for point in points if start_ns < point[0] < end_ns]
    curve = [(start_ns, _at(points, start_ns)), *inside, (end_ns, _at(points, end_ns))]
    return sum((t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in zip(curve, curve[1:]))


def _at(points: Sequence[tuple[int, float]], moment: int) -> float:
    """Return the power at a moment: on the line between its neighbors, or that of the only one."""
    before = [point for point in points if point[0] <= moment]
    after = [point for point in points if point[0] >= moment]
    if not before or not after:
        return (before[-1:] or after[:1])[0][1]
    (t0, p0), (t1, p1) = before[-1], after[0]
    return p0 if t0 == t1 else p0 + (p1 - p0) * (moment - t0) / (t1 - t0)
