"""What a Jetson tells of itself while models are measured on it, and clocks that are locked meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mggc_edge.benchmarks.agent.heat import Look, throttled
from mggc_edge.benchmarks.agent.power import Sample
from mggc_edge.benchmarks.devices.base import Device
from mggc_edge.errors import DeviceError

MAX_SAMPLES, MAX_RAILS, MAX_NAMES = 100_000, 32, 200  # of what a device tells
NONSENSE = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Heat:
    """A board at one moment.

    Attributes:
        look: what says whether it throttles, see `mggc_edge.benchmarks.agent.heat`.
        junction: temperature of the chip's hottest place in degrees Celsius; None where it is not known.
        available_bytes: memory that is free for anybody, of the pool that processor and GPU share.
    """

    look: Look
    junction: float | None
    available_bytes: int | None


def board_facts(device: Device) -> dict[str, Any] | None:
    """Return what a Jetson is, its rails, power mode and clocks; None for any other machine.

    Raises:
        DeviceError: what it tells makes no sense.
    """
    told = device.tell("board")
    try:
        if told["board"] is None:
            return None
        rails = [str(name) for name in told["power"]["rails"][:MAX_RAILS]]
        watts = {str(name): float(value) for name, value in list(told["power"]["watts"].items())[:MAX_RAILS]}
        monitors = [dict(rail) for rail in told["power"]["monitors"][:MAX_RAILS]]
        board, total = dict(told["board"]), dict(told["power"]["total"])
        temperatures = {str(name): float(value) for name, value in list(told["temperatures"].items())[:MAX_NAMES]}
        return {
            **board,
            "power": {
                "source": told["power"]["source"],
                "rails": rails,
                "monitors": monitors,
                "watts": watts,
                "total": total,
            },
            "power_mode": told["power_mode"],
            "clocks": _look(told["clocks"]),
            "locked": dict(told["locked"]),
            "left_locked": told["left_locked"],
            "temperatures": temperatures,
            "memory": dict(told["memory"]),
        }
    except NONSENSE as error:
        raise DeviceError("what the device tells of its board makes no sense") from error


def heat_of(device: Device) -> Heat:
    """Return how hot a Jetson is now.

    Raises:
        DeviceError: what it tells makes no sense.
    """
    told = device.tell("heat")
    try:
        junction, left = told["junction"], told["available_bytes"]
        return Heat(
            _look(told["look"]),
            None if junction is None else float(junction),
            None if left is None else int(left),
        )
    except NONSENSE as error:
        raise DeviceError("what the device tells of its heat makes no sense") from error


def since_now(device: Device) -> Callable[[], tuple[str, ...]]:
    """Return what says, later, why clocks were lowered since now: in phrases, nothing where they were not.

    On any machine but a Jetson it is always nothing.
    """
    if device.facts.machine.jetson is None:
        return tuple
    before = heat_of(device).look
    return lambda: tuple(throttled(before, heat_of(device).look))


def power_of(device: Device) -> list[Sample]:
    """Return the samples of power since they were begun.

    Raises:
        DeviceError: they make no sense.
    """
    told = device.tell("power_stop")
    try:
        rails = [str(name) for name in told["rails"][:MAX_RAILS]]
        found: list[Sample] = []
        for moment, *values in told["samples"][:MAX_SAMPLES]:
            pairs = zip(rails, values, strict=True)
            found.append((int(moment), {name: float(value) for name, value in pairs if value is not None}))
            if len(found) > 1 and found[-1][0] < found[-2][0]:
                raise ValueError
    except NONSENSE as error:
        raise DeviceError("what the device tells of its power makes no sense") from error
    return found


@contextmanager
def locked_clocks(device: Device, say: Callable[[str], None]) -> Iterator[None]:
    """Lock the clocks of a device, and put them back at the end, however that comes.

    A connection that is lost needs nothing from here: the guard on the device then puts them back by itself.

    Args:
        device: where, entered.
        say: is told what is to be said.

    Raises:
        DeviceError: they cannot be locked.
    """
    answer = device.tell("lock_clocks")
    if answer.get("locked") is not True:
        hint = answer.get("hint")
        raise DeviceError(
            str(answer.get("refused") or "the clocks cannot be locked"), hint=hint if isinstance(hint, str) else None
        )
    for remark in _texts(answer.get("remarks")):
        say(remark)
    try:
        yield
    finally:
        for remark in _texts(_last_words(device).get("remarks")):
            say(f"warning: {remark}")


def _last_words(device: Device) -> Mapping[str, Any]:
    try:
        return device.tell("unlock_clocks")
    except DeviceError:
        return {}


def _look(told: Mapping[str, Any]) -> Look:
    return {
        str(group): {str(name): int(value) for name, value in list(values.items())[:MAX_NAMES]}
        for group, values in list(told.items())[:MAX_NAMES]
    }


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
