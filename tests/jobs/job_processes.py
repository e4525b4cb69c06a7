"""Small jobs, run in processes that can be killed in any stage; what a job leaves is compared byte by byte."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec

SERVER = Path(__file__).with_name("job_server.py")
ROOT = SERVER.parents[2]
STAGES = ("outputs", "discriminator", "encoder", "prune", "finetune", "export", "quality", "bench", "report")
QUICK = (
    "--image-size", "32", "--quick", "--threads", "1", "--set", "quick.encoder_steps=6", "--set",
    "quick.discriminator_steps=6", "--set", "quick.prune_steps=8", "--set", "quick.finetune_steps=8", "--set",
    "quick.pictures=14", "--set", "discriminator.ndf=4", "--set", "bench.processes=1", "--set", "quick.bench_pairs=2",
    "--set", "bench.warmup_seconds=0.01", "--set", "export.parity_pictures=1", "--set", "export.simplify=false",
    "--set", "finetune.recalibration_batches=2",
)  # fmt: skip
# What a run must be equal in, whether it was stopped on the way or not. The rest tells of times.
EQUAL = ("original", "slim", "plan.json", "discriminator-plan.json", "export", "logs", "samples", "quality.json")
Stop = tuple[str, signal.Signals]  # in which stage, and by what


@dataclass(frozen=True)
class Done:
    """What a process left: its exit code (minus the signal that ended it), its words, and seconds by stage."""

    code: int
    out: str
    err: str
    seconds: Mapping[str, float]
    threads: int


class JobServer:
    """Runs command lines of jobs, each in a forked process; see `job_server`."""

    def __enter__(self) -> JobServer:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def run(self, cwd: Path, *words: object, stop: Mapping[str, Any] | None = None, save_every_s: float = 0.02) -> Done:
        """Run `mggc-edge WORDS` in a folder; `stop` says in or after which stage, when, and by which signal it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        (cwd / "stages.json").unlink(missing_ok=True)
        order = {"words": [str(w) for w in words], "cwd": str(cwd), "stop": stop, "save_every_s": save_every_s}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())["code"]
        told = cwd / "stages.json"
        stages = json.loads(told.read_text()) if told.is_file() else {"seconds": {}, "threads": 0}
        return Done(code, (cwd / "stdout.txt").read_text(), (cwd / "stderr.txt").read_text(), **stages)

    def stopped(
        self, cwd: Path, command: str, words: Sequence[object], whole: Done, stops: Sequence[Stop], seed: int
    ) -> list[Done]:
        """Run a job into RUN, stop it at a random moment of one stage after another, resume it each time.

        Returns every process; the last of them comes to the end.
        """
        rng = random.Random(seed)
        found: list[Done] = []
        for stage, how in stops:
            times = sum(other == stage for other, _ in stops)  # which share what a stage takes
            after = rng.uniform(0, 0.8) * whole.seconds[stage] / times
            line = ["--resume", "RUN"] if found else [*words, "--out", "RUN"]
            found.append(self.run(cwd, command, *line, stop={"stage": stage, "after_s": after, "signal": how}))
        return [*found, self.run(cwd, command, "--resume", "RUN")]


def leaves(run: Path, names: Sequence[str] = EQUAL) -> dict[str, bytes]:
    """Return the content of a run's files by their paths, hidden ones too."""
    paths = [path for name in names for path in ((run / name).rglob("*") if (run / name).is_dir() else [run / name])]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(paths) if path.is_file()}


def steps_logged(run: Path) -> dict[str, list[int]]:
    """Return the steps in metrics.jsonl, by stage."""
    found: dict[str, list[int]] = {}
    for line in (run / "logs/metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["stage"], []).append(record["step"])
    return found


def write_networks(folder: Path) -> Path:
    """Write generator.pth, partner.pth, discriminator.pth (3 channels) and pair.pth (6), all small."""
    for seed, (name, spec) in enumerate(
        {
            "generator": resnet_spec(blocks=1, ngf=4),
            "partner": resnet_spec(blocks=1, ngf=4),
            "batch": resnet_spec(blocks=1, ngf=4, norm="batch"),
            "discriminator": patchgan_spec(ndf=4, norm="instance"),
            "pair": patchgan_spec(ndf=4, norm="batch", in_channels=6),
        }.items()
    ):
        torch.manual_seed(seed)
        torch.save(Network(spec).state_dict(), folder / f"{name}.pth")
    return folder


def write_pictures(folder: Path, count: int, *, size: tuple[int, int] = (40, 40), seed: int = 0) -> Path:
    """Write `count` pictures of (width, height) with something to see in them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def write_pairs(root: Path, count: int = 10) -> Path:
    """Write train/ and test/ with side-by-side pairs."""
    write_pictures(root / "train", count, size=(80, 40))
    write_pictures(root / "test", 2, size=(80, 40), seed=1)
    return root


def write_unpaired(root: Path, count: int = 8) -> Path:
    """Write trainA/ trainB/ testA/ testB/."""
    for number, (name, of) in enumerate((("trainA", count), ("trainB", count), ("testA", 2), ("testB", 2))):
        write_pictures(root / name, of, seed=number)
    return root
