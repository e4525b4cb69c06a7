"""A small generator, as checkpoint, plan and exported run, for every test of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mggc_edge.cli.main import run
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.weights import load_network, weights_sha256
from mggc_edge.pruning.random import random_plan

SIZE = 32
# Of a fresh process; ru_maxrss would begin with the size of the process that started it.
PEAK_KILOBYTES = "int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"


@dataclass(frozen=True)
class Ran:
    """What one command line gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.out)
        return loaded


Command = Callable[..., Ran]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in this process, at 80 columns and without colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*words: object) -> Ran:
        capfd.readouterr()
        code = run([str(word) for word in words])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


def random_network(seed: int = 0, **changes: Any) -> Network:
    torch.manual_seed(seed)
    return Network(resnet_spec(**{"blocks": 2, "ngf": 8, **changes})).eval()


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """generator.pth, plan.json and run/ (exported with the plan at 32x32), pictures/ with three files."""
    folder = tmp_path_factory.mktemp("material")
    torch.save(random_network().state_dict(), folder / "generator.pth")
    network = load_network(folder / "generator.pth", image_size=(SIZE, SIZE))
    plan = random_plan(network.table, 0.3, seed=1, source_sha256=weights_sha256(network))
    (folder / "plan.json").write_text(json.dumps(plan.to_json()))
    words: Sequence[object] = (
        "--quiet", "export", folder / "generator.pth", "--plan", folder / "plan.json", "--image-size", SIZE,
        "--out", folder / "run", "--output", folder / "export.json", "--json",
    )  # fmt: skip
    assert run([str(word) for word in words]) == 0
    pictures = folder / "pictures"
    (pictures / "deeper").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "deeper/c.webp"):
        Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(pictures / name)
    return folder
