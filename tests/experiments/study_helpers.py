"""Studies of the tests: a table in a TOML file, runs that a few lines of Python pretend to make, and their records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mggc_edge.benchmarks.experiments.study.runner import Runner
from mggc_edge.benchmarks.experiments.study.table import DATA, Study, read_study

TABLE = """
title = "A study"
text = "What is asked."
base = "--model $DATA/g.pth --budget 0.05"
seeds = [0, 1]
compare = "ours"

[[rows]]
name = "ours"
title = "Ours"
flags = "--method mggc"

[[rows]]
name = "theirs"
title = "Theirs"
flags = "--method magnitude"
"""

# Takes the flags of `compress`, notes them, and leaves what a run leaves. What a file `orders` beside the run folders
# says of the run's name happens first: "die" kills the runner and this process in the middle, "fail" ends with exit
# code 1, "interrupt" with 130; an order is carried out once.
COMPRESS = """
import json, os, pathlib, signal, sys
flags = sys.argv[1:]
resumed = "--resume" in flags
folder = pathlib.Path(flags[flags.index("--resume" if resumed else "--out") + 1])
runs = folder.parent.parent
with (runs / "calls").open("a") as calls:
    calls.write(f"{folder.name} {'resumed' if resumed else 'begun'}\\n")
if resumed != (folder / "job.json").is_file():
    sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
(folder / "job.json").write_text("{}")
orders = runs / "orders"
given = json.loads(orders.read_text()) if orders.is_file() else {}
order = given.pop(folder.name, None)
orders.write_text(json.dumps(given))
if order == "die":
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(1)
if order in ("fail", "interrupt"):
    sys.exit({"fail": 1, "interrupt": 130}[order])
(folder / "result.json").write_text(json.dumps({"flags": flags}))
"""


def write_study(folder: Path, text: str = TABLE) -> Path:
    """Write a study file and return its path."""
    path = folder / "a-study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def fake_measure(folder: Path) -> dict[str, Any]:
    """Return what is kept of a pretended run."""
    assert (folder / "result.json").is_file()
    return {"timings_s": {"prune": 60.0, "finetune": 60.0}, "where": f"{folder.parent.parent / 'data'}/x"}


def fake_runner(folder: Path, study: Study | None = None, *, keep: bool = False) -> Runner:
    """Return a runner of pretended runs below a folder."""
    (folder / "runs").mkdir(exist_ok=True)
    script = folder / "compress.py"
    script.write_text(COMPRESS, encoding="utf-8")
    return Runner(
        study or read_study(write_study(folder)),
        folder / "a-study.jsonl",
        folder / "runs",
        {DATA: folder / "runs/data"},
        fake_measure,
        keep=keep,
        command=(sys.executable, str(script)),
    )


def calls(folder: Path) -> list[str]:
    """Return what the pretended `compress` was asked for, in order."""
    return (folder / "runs/calls").read_text().splitlines()


def record(row: str, seed: int, flags: list[str], **test: dict[str, list[float | None]]) -> dict[str, Any]:
    """Return the line of a finished run with these values of its test pictures."""
    return {
        "row": row,
        "seed": seed,
        "flags": flags,
        "settings": {"request.method": row, "seed": seed, "finetune.epochs": 2.0},
        "steps": {"finetune": 20, **({"prune": 10} if row == "ours" else {})},
        "budget_met": 0.049,
        "discriminator_kept": 0.25 if row == "ours" else None,
        "process_s": 90.0,
        "timings_s": {"finetune": 120.0},
        "held_out": {
            "before_finetuning": {"psnr": 10.0},
            "after_finetuning": {"psnr": 15.0 + seed, "distance": 0.5 + seed},
        },
        "test": {
            "where": "test",
            "pictures": 6,
            "names_sha256": "0",
            "features": "squeezenet",
            "paired": True,
            "remarks": [],
            "original": {},
            **test,
        },
        "machine": {"processor": "a processor", "cores": 2},
        "tools": {"torch": "2.13.0", "mggc-edge": "0.1.0"},
    }


if __name__ == "__main__":  # a runner that can be killed
    fake_runner(Path(sys.argv[1])).go()
