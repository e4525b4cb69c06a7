"""Two processes train as one does with the same batch, where nothing but batch statistics would tell them apart."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mggc_edge.training.order import Share, batch_indices
from mggc_edge.training.processes import ALONE, Processes
from tests.training.process_stages import STAGES, trained_by

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("process_stages.py")
# A bias before an instance norm has no gradient but rounding, of which Adam makes steps of full length.
BEFORE_NORM = re.compile(r"weight\.(G(_[AB])?\.model\.(1|4|7|10\.conv_block\.[15]|11|14)|D(_[AB])?\.model\.[25])\.bias")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def environment(rank: int, size: int, port: str) -> dict[str, str]:
    """What torchrun tells one of its processes."""
    return {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip


def run_all(lines: Sequence[Sequence[str]], environments: Sequence[dict[str, str]]) -> list[tuple[int, str]]:
    """Run processes at the same time; return their exit codes, and what they wrote to stderr."""
    running = [
        subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True)
        for line, env in zip(lines, environments, strict=True)
    ]
    texts = [process.communicate(timeout=120)[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, texts, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes with a picture each, and one with two, found."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    for name in ("two", "one"):
        (folder / name).mkdir()
    two = [sys.executable, str(SCRIPT), str(folder / "two"), "1"]
    assert run_all([two, two], [environment(0, 2, port), environment(1, 2, port)]) == [(0, ""), (0, "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lightning_fabric", None)  # of which one process needs nothing
        for name in STAGES:
            save_file(trained_by(name, 2, ALONE), folder / "one" / f"{name}.0.safetensors")
    return folder


def differences(a: dict[str, Tensor], b: dict[str, Tensor], kind: str) -> dict[str, float]:
    assert set(a) == set(b)
    return {name: (a[name] - b[name]).abs().max().item() for name in a if name.startswith(f"{kind}.")}


@pytest.mark.parametrize("name", STAGES)
def test_the_first_step_s_averaged_gradients_are_those_of_one_process(folder: Path, name: str) -> None:
    one, two = (load_file(folder / which / f"{name}.0.safetensors") for which in ("one", "two"))
    found = differences(one, two, "gradient")
    assert max(found.values()) <= 1e-6
    assert max(one[key].abs().max().item() for key in found) > 0.05
    assert max(differences(one, two, "metric").values()) <= 5e-6  # the log has the mean of all pictures


@pytest.mark.parametrize("name", STAGES)
def test_ten_steps_lead_to_the_weights_of_one_process(folder: Path, name: str) -> None:
    one, two = (load_file(folder / which / f"{name}.0.safetensors") for which in ("one", "two"))
    found = differences(one, two, "weight")
    assert {key: value for key, value in found.items() if value > 1e-5 and not BEFORE_NORM.fullmatch(key)} == {}
    assert len([key for key in found if not BEFORE_NORM.fullmatch(key)]) >= 6


@pytest.mark.parametrize("name", STAGES)
def test_both_processes_have_the_same_weights_bit_for_bit(folder: Path, name: str) -> None:
    first, second = (load_file(folder / "two" / f"{name}.{rank}.safetensors") for rank in (0, 1))
    assert set(first) == set(second)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_shares_of_a_batch_are_the_batch_whatever_their_number_and_each_place_has_its_own_draws() -> None:
    whole = batch_indices(3, "train", 5, 11, 4)
    drawn = [rng.random() for rng in Share(4).draws(3, "train/views", 5)]
    assert len(set(drawn)) == 4
    for each, processes in ((4, 1), (2, 2), (1, 4)):
        shares = [Share(each, rank, processes) for rank in range(processes)]
        assert [number for share in shares for number in share.pictures(3, "train", 5, 11)] == whole
        assert [rng.random() for share in shares for rng in share.draws(3, "train/views", 5)] == drawn
        assert {share.total for share in shares} == {4}


def test_one_process_exchanges_nothing() -> None:
    tensor = torch.ones(2)
    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)
    metrics = {"loss": 1.0}
    ALONE.mean([tensor])
    ALONE.broadcast([tensor])
    ALONE.mean_gradients([parameter])
    ALONE.barrier()
    assert ALONE.mean_numbers(metrics) is metrics
    assert ALONE.broadcast_text("a") == "a"
    assert (ALONE.rank, ALONE.size, ALONE.first, ALONE.device) == (0, 1, True, torch.device("cpu"))
    assert torch.equal(tensor, torch.ones(2))
    assert Processes(torch.device("meta")).device == torch.device("meta")
