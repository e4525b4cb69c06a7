"""Power and energy of a picture, on boards that measure them: from bench.json to rows of the table of costs."""

from __future__ import annotations

from dataclasses import dataclass

from mggc_edge.report.fields import Fields


@dataclass(frozen=True)
class Power:
    """What one side takes.

    Attributes:
        energy_mj: of a picture, in mJ, what the idle board takes included.
        above_idle_mj: of that, what the idle board does not take.
        mean_w, idle_w: power under the model, and of the idle board before it, in W.
        total: which rails that is, in words.
        pool_bytes: memory that it takes of the pool that processor and GPU share.
    """

    energy_mj: float | None = None
    above_idle_mj: float | None = None
    mean_w: float | None = None
    idle_w: float | None = None
    total: str | None = None
    pool_bytes: float | None = None


NO_POWER = Power()


def read_power(run: Fields) -> Power:
    """Return what an entry of `runs` says of power; nothing where nothing was measured, as on most machines."""
    power, memory = run.fields("power"), run.fields("memory")
    pool = None if memory is None else memory.number("pool_bytes")
    if power is None:
        return Power(pool_bytes=pool)
    total = power.fields("total")
    return Power(
        power.number("energy_mj_per_picture"),
        power.number("above_idle_mj_per_picture"),
        power.number("mean_w"),
        power.number("idle_w"),
        None if total is None else total.text("text"),
        pool,
    )
