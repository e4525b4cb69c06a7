"""What the answers of a worker have to hold, checked before anything is made of them: they may come from far away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_NS = 10**18  # thirty years

Check = Callable[[Any], bool]


def makes_sense(request: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Return whether an answer holds what was asked for; see `mggc_edge.benchmarks.agent.worker`."""
    do = request.get("do")
    if not all(check(answer.get(key)) for key, check in ANSWERS.get(str(do), {}).items()):
        return False
    return do != "sample" or len(answer["samples_ns"]) == request["runs"]


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_NS


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_NS


def _input(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _text(value.get("name"))
        and _text(value.get("dtype"))
        and _list_of(_count)(value.get("shape"))
    )


def _texts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _noted(value: Any) -> bool:
    return isinstance(value, dict) and _count(value.get("wall_ns")) and all(map(_maybe(_count), value.values()))


# What was asked for -> key -> what stands there.
ANSWERS: Mapping[str, Mapping[str, Check]] = {
    "open": {
        "load_ns": _count,
        "first_ns": _count,
        "rss_before_bytes": _maybe(_count),
        "cores": _maybe(_list_of(_count)),
        "provider": _text,
        "inputs": _list_of(_input),
        "versions": _texts_by_name,
    },
    "warm": {"runs": _count, "ns": _count, "settled": lambda value: isinstance(value, bool), "median_ns": _number},
    "sample": {"samples_ns": _list_of(_count), "noted": _noted},
    "steady": {"runs": _count, "start_ns": _count, "end_ns": _count},
    "profile": {"samples_ns": _list_of(_count), "file": _text},
    "copy": {"best_ns": _count},
    "build": {"engine": _text},
    "close": {"rss_peak_bytes": _maybe(_count)},
}
