"""Checkpoints that are damaged or hostile: read, or refused in one sentence; nothing is run, little memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_harness import SLOW_TIMES, fuzz
from mutations import MALICIOUS, call_pickle, repack
from torch import Tensor

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import save_network

MUTANTS = 1500


def hostile_files(folder: Path, sentinel: Path) -> list[Path]:
    """Write files whose pickles make the file `sentinel` when they are run; nothing of them may ever be."""
    command = {"system": f"touch {sentinel}", "Popen": f"touch {sentinel}"}
    files = []
    for module, name in MALICIOUS:
        pickle = call_pickle(module, name, command.get(name, f"open({str(sentinel)!r}, 'w')"))
        archive = repack({"a/data.pkl": pickle, "a/byteorder": b"little", "a/data/0": bytes(64), "a/version": b"3\n"})
        for suffix, content in ((".zip.pth", archive), (".pth", pickle)):
            files.append(folder / f"hostile-{module}-{name}{suffix}")
            files[-1].write_bytes(content)
    return files


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return real files of small networks in every format that is read."""
    folder = tmp_path_factory.mktemp("seeds")
    torch.manual_seed(0)
    resnet = Network(resnet_spec(blocks=2, ngf=4))
    affine = Network(resnet_spec(blocks=1, ngf=4, norm="instance_affine", padding="zeros", dropout=True))
    mobile = Network(resnet_spec(blocks=1, ngf=4, norm="batch", separable=True))
    unet = Network(unet_spec(halvings=3, ngf=4))
    patchgan = Network(patchgan_spec(ndf=4, norm="batch"))
    contents: dict[str, Any] = {
        "resnet": resnet.state_dict(),
        "affine": affine.state_dict(),
        "mobile": {"module." + key: value for key, value in mobile.state_dict().items()},
        "unet": unet.state_dict(),
        "patchgan": patchgan.state_dict(),
        "half": {key: value.half() for key, value in resnet.state_dict().items()},
        "bfloat16": {key: _as(value, torch.bfloat16) for key, value in unet.state_dict().items()},
        "holder": {
            "epoch": 3,
            "netG_A": resnet.state_dict(),
            "netG_B": affine.state_dict(),
            "netD_A": patchgan.state_dict(),
            "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "lr": 2e-4},
        },
    }
    files = []
    for name, content in contents.items():
        for suffix, zipped in ((".pth", True), (".old.pth", False)):
            files.append(folder / f"{name}{suffix}")
            torch.save(content, files[-1], _use_new_zipfile_serialization=zipped)
    for network, name in ((resnet, "resnet"), (unet, "unet")):
        save_network(network, folder / name)
        files += [folder / name, folder / f"{name}.safetensors"]
        files[-1].write_bytes((folder / name / "weights.safetensors").read_bytes())
    return files


def _as(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def test_mutants_of_checkpoints_are_read_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    hostile = hostile_files(tmp_path, tmp_path / "sentinel")
    fuzz("checkpoint", seeds, MUTANTS, tmp_path, warm_up=hostile).check(MUTANTS)


@pytest.mark.slow
def test_many_mutants_of_checkpoints_are_read_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    hostile = hostile_files(tmp_path, tmp_path / "sentinel")
    mutants = SLOW_TIMES * MUTANTS
    fuzz("checkpoint", seeds, mutants, tmp_path, warm_up=hostile, batch=2500, seconds=1200).check(mutants)
