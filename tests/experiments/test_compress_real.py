"""The table of results in the README: KID with its interval, and without one where an older result has none."""

from __future__ import annotations

from typing import Any

import pytest

from mggc_edge.benchmarks.experiments.compress_real import table

OLD = {"original": {"value": 1444.27, "std": 145.9}, "compressed": {"value": 1258.76, "std": 86.2}}
NEW = {
    "original": {"value": 1444.27, "std": 145.9, "ci95": [1301.2, 1602.9]},
    "compressed": {"value": 1258.76, "std": 86.2, "ci95": [1102.4, 1399.6]},
    "difference": {"value": -185.51, "ci95": [-301.0, -60.0]},
}


def document(kid: dict[str, Any] | None) -> dict[str, Any]:
    sides = {
        "original": {"macs_true": 386_000_000, "size_bytes": 41_800_000},
        "compressed": {"macs_true": 19_300_000, "size_bytes": 2_060_000},
    }
    case = {
        "title": "U-Net-128",
        "in_table": True,
        "result": {**sides, "budget": 0.05, "quality": {"kid": kid, "psnr_to_original": 14.9}},
        "bench": {
            "latency_ms": {"original": {"p50": 6.71}, "compressed": {"p50": 1.01}},
            "comparison": {"ci99": [6.19, 6.93], "ratio": 6.55, "realisation": 0.33, "verdict": "faster"},
        },
    }
    return {"cases": {"a": case, "b": {**case, "in_table": False}}}


@pytest.mark.parametrize(
    ("kid", "cell"),
    [(OLD, "1444 -> 1259"), (NEW, "1444 (1301 to 1603) -> 1259 (1102 to 1400)"), (None, "not measured")],
)
def test_the_table_shows_kid_with_its_interval_where_there_is_one(kid: dict[str, Any] | None, cell: str) -> None:
    (row,) = table(document(kid)).splitlines()[2:]
    assert row == (
        "| U-Net-128 | 0.05 | 386 M -> 19.3 M | 41.8 MB -> 2.06 MB | 6.71 ms -> 1.01 ms | 6.55x (6.19 to 6.93) | 0.33 "
        f"| 14.9 dB | {cell} |"
    )


def test_a_speed_up_without_a_verdict_is_not_in_the_table() -> None:
    found = document(None)
    found["cases"]["a"]["bench"]["comparison"]["verdict"] = "inconclusive"
    assert "| 6.71 ms -> 1.01 ms | ? | ? | 14.9 dB |" in table(found).splitlines()[2]
