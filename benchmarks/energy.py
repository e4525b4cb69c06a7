"""Power and energy of models on a Jetson: each in a run of its own, with nothing else measured beside it.

First the board cools down to where it was; then it is left alone for a while, which gives its idle power; then a fresh
process runs the model without a pause. Energy a picture is the mean power of that stretch times the time of a picture,
and what the idle board takes is in it: it is given apart, and so is the energy above it. Which rails make the total,
and what that total is, goes with the numbers (`mggc_edge.benchmarks.agent.power`).

The same run gives the memory that the model takes of the pool that processor and GPU share: the fall of what is
available. A process's own size does not show what it has on the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mggc_edge.benchmarks.agent import heat
from mggc_edge.benchmarks.agent.power import LEAST_HZ, Sample, Window, meaning, window
from mggc_edge.benchmarks.board import board_facts, heat_of, power_of
from mggc_edge.benchmarks.bundles import prepare
from mggc_edge.benchmarks.devices.base import Device, Worker
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload, pictures_of

LEAST_SAMPLES = 100  # of power, under the model
WARM_SECONDS, MOST_WARM_SECONDS = 1.0, 10.0
COOL_DEGREES, COOL_SECONDS = 3.0, 60.0  # above what it was at first; and how long is waited for that
SILENT_SECONDS = 30.0  # for which a device is left alone in one piece, see `mggc_edge.benchmarks.agent.serve`
GRACE_SECONDS = 60.0  # beyond what it should take, before a process that does not answer is given up
NS = 1_000_000_000


@dataclass(frozen=True)
class Alone:
    """What a run of one model alone gave.

    Attributes:
        power: the JSON object `power` of its run; None where there are no rails.
        pool_bytes: memory that it took of the pool; None where that is not known.
        throttled: what shows that clocks were lowered meanwhile.
    """

    power: Mapping[str, Any] | None = None
    pool_bytes: int | None = None
    throttled: tuple[str, ...] = ()


def seconds_alone(seconds: float, idle_seconds: float) -> float:
    """Return about how long `measure_alone` takes for each model."""
    return seconds + idle_seconds + WARM_SECONDS + 2.0


def measure_alone(
    models: Sequence[Workload],
    device: Device,
    *,
    threads: int,
    seconds: float,
    idle_seconds: float,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Alone]:
    """Measure power, energy and memory of models on a Jetson, each alone; on any other machine there is nothing to see.

    Args:
        models: what to measure.
        device: where, entered.
        threads: threads inside an operator.
        seconds: how long each model runs.
        idle_seconds: how long the board is left alone before each.
        seed: of what is fed.
        progress: is told what is done, in words.
        sleep, clock: for tests.

    Raises:
        ArtifactError, InputError, MissingDependencyError: see `measure`.
        DeviceError: the device cannot be reached any more, or tells what makes no sense.
    """
    facts = board_facts(device)
    if facts is None:
        return [Alone() for _ in models]
    first, monitors = heat_of(device).junction, facts["power"]["monitors"]
    found = []
    for model, place in zip(models, prepare(models, device), strict=True):
        if progress is not None:
            progress(f"measuring the power of {model.name}")
        _cool_down(device, first, sleep, clock)
        sleep_idle = partial(_leave_alone, device, idle_seconds, sleep)
        request = open_request(model, place, threads, seed, block=1)  # all on the same cores, as when they are timed
        found.append(_alone(device, monitors, model, request, seconds, sleep_idle))
    return found


def with_power(report: BenchmarkReport, found: Sequence[Alone]) -> BenchmarkReport:
    """Return a report whose runs have what each model gave alone, in the same order."""
    runs = [
        replace(run, power=one.power, pool_bytes=one.pool_bytes) for run, one in zip(report.runs, found, strict=True)
    ]
    return replace(report, runs=tuple(runs))


def _alone(
    device: Device,
    monitors: Sequence[Mapping[str, Any]],
    model: Workload,
    request: dict[str, Any],
    seconds: float,
    leave_alone: Callable[[], None],
) -> Alone:
    device.tell("power_start")
    leave_alone()
    idle = power_of(device)
    before = heat_of(device)
    worker = device.start(model)
    try:
        opened = worker.ask(request, GRACE_SECONDS)
        _warm(worker)
        warm = heat_of(device)
        device.tell("power_start")
        ran = worker.ask({"do": "steady", "ns": int(seconds * NS)}, seconds + GRACE_SECONDS)
        busy = power_of(device)
        after = heat_of(device)
    finally:
        worker.end()
    said = tuple(heat.throttled(warm.look, after.look))
    pool = None
    if before.available_bytes is not None and after.available_bytes is not None:
        pool = max(0, before.available_bytes - after.available_bytes)
    pictures = ran["runs"] * pictures_of(opened["inputs"])
    power = power_json(monitors, idle, busy, (ran["start_ns"], ran["end_ns"]), pictures)
    if power is not None:
        power["temperature_c"] = {"before": before.junction, "after": after.junction}
        power["throttled"] = list(said)
    return Alone(power, pool, said)


def power_json(
    monitors: Sequence[Mapping[str, Any]],
    idle: Sequence[Sample],
    busy: Sequence[Sample],
    ran_ns: tuple[int, int],
    pictures: int,
) -> dict[str, Any] | None:
    """Return the JSON object `power` of a run: power in W, energy of a picture in mJ; None where no rail was read.

    Args:
        monitors: what is known of the rails, see `Rail.to_json`.
        idle, busy: samples before the model was opened, and around its run.
        ran_ns: the moments between which it ran without a pause.
        pictures: that it gave in that time.
    """
    remarks: list[str] = []
    # A monitor that averages says for a while what was before.
    interval = max((int(1e6 * (rail.get("interval_ms") or 0)) for rail in monitors), default=0)
    under = _window(busy, ran_ns[0] + min(interval, (ran_ns[1] - ran_ns[0]) // 2), ran_ns[1])
    if under is None:
        return None
    alone, idle_ns = None, (idle[-1][0] - idle[0][0]) if idle else 0
    if idle_ns:  # what was before may be another model
        alone = _window(idle, idle[0][0] + min(interval, idle_ns // 2), idle[-1][0])
    if under.samples < LEAST_SAMPLES:
        remarks.append(f"{under.samples} samples of power are few: raise bench.energy_seconds")
    if under.gap_seconds > 1.5 / LEAST_HZ:
        remarks.append(f"the rails could not be read for {under.gap_seconds:.2g} s at a time")
    whole = meaning(list(under.mean_mw))
    each_seconds = (ran_ns[1] - ran_ns[0]) / NS / pictures
    above = None
    if under.total_mw is not None and alone is not None and alone.total_mw is not None:
        if alone.total_rails == under.total_rails:
            above = under.total_mw - alone.total_mw
        else:
            remarks.append("other rails could be read while nothing ran, so that what is above idle is not known")
    return {
        "total": {"kind": whole.kind, "rails": list(whole.rails), "text": whole.text},
        "rails": {
            name: {
                "mean_w": mean / 1e3,
                "idle_w": None if alone is None or name not in alone.mean_mw else alone.mean_mw[name] / 1e3,
                "energy_mj_per_picture": mean * each_seconds,
                "in_total": name in whole.rails,
            }
            for name, mean in under.mean_mw.items()
        },
        "mean_w": _times(under.total_mw, 1e-3),
        "idle_w": None if alone is None else _times(alone.total_mw, 1e-3),
        "energy_mj_per_picture": _times(under.total_mw, each_seconds),
        "above_idle_mj_per_picture": _times(above, each_seconds),
        "pictures": pictures,
        "seconds": (ran_ns[1] - ran_ns[0]) / NS,
        "idle_seconds": 0.0 if alone is None else idle_ns / NS,
        "samples": under.samples,
        "hz": under.samples / under.seconds,
        "monitors": [dict(rail) for rail in monitors],
        "trace": {"idle": _trace(idle), "busy": _trace(busy), "ran_ns": list(ran_ns)},
        "remarks": remarks,
    }


def _window(samples: Sequence[Sample], start_ns: int, end_ns: int) -> Window | None:
    try:
        found = window(samples, start_ns, end_ns)
    except ValueError:
        return None
    return found if found.mean_mw else None


def _warm(worker: Worker) -> None:
    least, most = int(WARM_SECONDS * NS), int(MOST_WARM_SECONDS * NS)
    worker.ask({"do": "warm", "min_runs": 2, "min_ns": least, "max_ns": most}, MOST_WARM_SECONDS + GRACE_SECONDS)


def _cool_down(device: Device, first: float | None, sleep: Callable[[float], None], clock: Callable[[], float]) -> None:
    """Wait until the chip is about as cool as it was at first, for some time at most."""
    began = clock()
    while first is not None and clock() - began < COOL_SECONDS:
        now = heat_of(device).junction
        if now is None or now < first + COOL_DEGREES:
            return
        sleep(1.0)


def _leave_alone(device: Device, seconds: float, sleep: Callable[[float], None]) -> None:
    """Wait for so long; a device of which nothing is asked for a minute takes its connection for lost."""
    while seconds > SILENT_SECONDS:
        sleep(SILENT_SECONDS)
        seconds -= SILENT_SECONDS
        heat_of(device)
    sleep(seconds)


def _trace(samples: Sequence[Sample]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for _, values in samples for name in values))
    return {
        "ns": [moment for moment, _ in samples],
        "mw": {name: [values.get(name) for _, values in samples] for name in names},
    }


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
