"""What a Jetson is asked while models are measured on it: what it is, its heat, power while something runs, its clocks.

Every question is a name of `Surroundings`, and every answer JSON:

    "board"          -> what it is, its rails, its power mode and limits of clocks; {"board": null} on any other machine
    "heat"           -> the look of `heat.look`, temperatures, memory that is available
    "power_start"    -> samples of all rails are taken from now on, 20 a second
    "power_stop"     -> rails, and samples [moment in ns, mW of each rail] since then
    "lock_clocks"    -> locked, remarks; or refused, with a hint
    "unlock_clocks"  -> restored, remarks

What was begun is ended by `close`. Clocks are held by a guard, a process of its own: see `clocks`.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import clocks, heat, jetson, power
from .child import Child, LongLineError

if TYPE_CHECKING:
    from collections.abc import Callable

HZ = 20.0
GUARD_SECONDS = 50.0  # for jetson_clocks to store and lock, or to restore
AGENT = Path(__file__).resolve().parent  # the folder, or the archive


class BoardSession:
    """Answers these questions, and holds what they began.

    Args:
        root: where the files lie that Linux keeps about the machine; for tests.
        hz: samples of power a second.
        agent: the program that the guard of the clocks is.
    """

    def __init__(self, root: Path = Path("/"), hz: float = HZ, agent: Path = AGENT) -> None:
        self._root, self._hz, self._agent = root, hz, agent
        self._source: power.Sysfs | power.Tegrastats | None = None
        self._sampler: power.Sampler | None = None
        self._guard: Child | None = None
        self.answers: dict[str, Callable[[], dict[str, Any]]] = {
            "board": self._board,
            "heat": self._heat,
            "power_start": self._power_start,
            "power_stop": self._power_stop,
            "lock_clocks": self._lock_clocks,
            "unlock_clocks": self._unlock_clocks,
        }

    def close(self) -> None:
        """End what was begun: samples, and locked clocks."""
        self._power_stop()
        self._unlock_clocks()

    def _board(self) -> dict[str, Any]:
        found = jetson.board(self._root)
        if found is None:
            return {"board": None}
        self._source = power.source(self._root)
        names = () if self._source is None else self._source.rails
        meaning, found_rails = power.meaning(names), power.rails(self._root)
        watts = {rail.name: rail.read() for rail in found_rails}
        left = clocks.left_locked(self._root)
        return {
            "board": found.to_json(),
            "power": {
                "source": None if self._source is None else self._source.name,
                "rails": list(names),
                "monitors": [rail.to_json() for rail in found_rails],
                "watts": {name: value / 1000 for name, value in watts.items() if value is not None},
                "total": {"kind": meaning.kind, "rails": list(meaning.rails), "text": meaning.text},
            },
            "power_mode": clocks.power_mode(self._root),
            "clocks": heat.look(self._root),
            "locked": heat.locked(heat.look(self._root)),
            "left_locked": None if left is None else str(left),
            "temperatures": heat.temperatures(self._root),
            "memory": jetson.memory(self._root),
        }

    def _heat(self) -> dict[str, Any]:
        zones = heat.temperatures(self._root)
        return {
            "look": heat.look(self._root),
            "temperatures": zones,
            "junction": heat.junction(zones),
            "available_bytes": jetson.memory(self._root)["available_bytes"],
        }

    def _power_start(self) -> dict[str, Any]:
        self._power_stop()
        if self._source is None:
            self._source = power.source(self._root)
        if self._source is None:
            return {"rails": []}
        self._sampler = power.Sampler(self._source, self._hz)
        self._sampler.__enter__()
        return {"rails": list(self._source.rails)}

    def _power_stop(self) -> dict[str, Any]:
        sampler, self._sampler = self._sampler, None
        if sampler is None or self._source is None:
            return {"rails": [], "samples": []}
        sampler.__exit__()
        names = self._source.rails
        taken = [[moment, *(values.get(name) for name in names)] for moment, values in sampler.samples]
        return {"rails": list(names), "samples": taken}

    def _lock_clocks(self) -> dict[str, Any]:
        if self._guard is not None:
            return {"locked": True, "remarks": []}
        try:
            guard = Child(clocks.command(str(self._agent), self._root))
        except clocks.ClocksError as error:
            return {"refused": error.message, "hint": error.hint}
        except OSError as error:
            return {"refused": f"no process can be started to lock the clocks: {error.strerror}", "hint": None}
        answer = _said(guard)
        if answer.get("locked") is True:
            self._guard = guard
            return answer
        _end(guard)
        message = answer.get("message", "the process that locks the clocks ended without a word")
        return {"refused": message, "hint": answer.get("hint")}

    def _unlock_clocks(self) -> dict[str, Any]:
        guard, self._guard = self._guard, None
        if guard is None:
            return {"restored": True, "remarks": []}
        with contextlib.suppress(OSError):
            guard.send(b"\n")
        answer = _said(guard)
        _end(guard)
        if "restored" not in answer:
            return {"restored": False, "remarks": ["the process that puts the clocks back ended without a word"]}
        return answer


def _said(guard: Child) -> dict[str, Any]:
    """Return what the guard says next; nothing where it does not."""
    try:
        answer = json.loads(guard.line(GUARD_SECONDS))
    except (TimeoutError, EOFError, LongLineError, OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _end(guard: Child) -> None:
    """Let the guard end by itself, which it does once the clocks are as they were."""
    guard.exit_code(GUARD_SECONDS)
    guard.end()
