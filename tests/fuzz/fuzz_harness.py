"""Share mutants out over worker processes, and name the one that was being read when a worker crashed or hung."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
WORKER = ("-m", "tests.fuzz.fuzz_worker")
WORKERS = 2
SLOW_TIMES = 20  # how much longer the longer tier is


@dataclass(frozen=True)
class Fuzzed:
    """How reading ended.

    Attributes:
        endings: "read" or an error's name, and how often.
        sentences: of named files, what each one ended with.
        wrong: everything that must not be, by what was read.
    """

    endings: Counter[str] = field(default_factory=Counter)
    sentences: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def add(self, report: Mapping[str, Any]) -> None:
        """Take in the report of a worker."""
        self.endings.update(report["endings"])
        self.sentences.update(report["sentences"])
        self.wrong.update(report["wrong"])

    def check(self, mutants: int) -> None:
        """Fail with the first few things that were wrong; every mutant must have been read."""
        shown = "\n\n".join(f"{name}:\n" + "\n".join(found) for name, found in list(self.wrong.items())[:8])
        assert not self.wrong, f"{len(self.wrong)} of {mutants} went wrong\n{shown}"
        assert self.endings.total() >= mutants


def fuzz(
    target: str,
    seeds: Sequence[Path],
    mutants: int,
    folder: Path,
    *,
    warm_up: Sequence[Path] = (),
    batch: int = 500,
    seconds: float = 300.0,
) -> Fuzzed:
    """Read `mutants` mutants of `seeds` in worker processes, `batch` in each, each of which has `seconds`."""
    jobs = [
        {
            "target": target,
            "seeds": [str(seed) for seed in seeds],
            "warm_up": [str(path) for path in warm_up],
            "files": [],
            "first": first,
            "count": min(batch, mutants - first),
        }
        for first in range(0, mutants, batch)
    ]
    fuzzed = Fuzzed()
    with ThreadPoolExecutor(WORKERS) as pool:
        for report in pool.map(lambda job: _work(job, folder, seconds), jobs):
            fuzzed.add(report)
    return fuzzed


def read_files(
    target: str,
    files: Sequence[Path],
    folder: Path,
    *,
    warm_up: Sequence[Path] = (),
    seconds: float = 120.0,
) -> Fuzzed:
    """Read `files` in one worker process; how each one ended is in `sentences`."""
    job = {
        "target": target,
        "seeds": [],
        "warm_up": [str(path) for path in warm_up],
        "files": [str(file) for file in files],
        "first": 0,
        "count": 0,
    }
    fuzzed = Fuzzed()
    fuzzed.add(_work(job, folder, seconds))
    return fuzzed


def _work(job: Mapping[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    place = folder / f"{job['target']}-{job['first']}"
    place.mkdir()
    in_flight, report = place / "in_flight", place / "report.json"
    places = {"scratch": place, "sentinel": folder / "sentinel", "in_flight": in_flight, "report": report}
    document = {**job, **{name: str(path) for name, path in places.items()}}
    (place / "job.json").write_text(json.dumps(document), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, *WORKER, str(place / "job.json")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        ended = f"the worker ended with exit code {done.returncode}\n{done.stderr[-3000:]}"
    except subprocess.TimeoutExpired:
        ended = f"the worker was not done after {seconds} s"
    if report.exists():
        read: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return read
    name = in_flight.read_text(encoding="utf-8") if in_flight.exists() else "no mutant yet"
    return {"endings": {}, "sentences": {}, "wrong": {name: [ended]}}
