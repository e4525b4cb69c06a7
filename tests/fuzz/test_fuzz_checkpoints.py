"""Checkpoints that are damaged or hostile: read, or refused in one sentence; nothing is run, little memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import save_network
from tests.fuzz import hostile_checkpoints
from tests.fuzz.fuzz_harness import SLOW_TIMES, fuzz, read_files
from tests.fuzz.mutations import MALICIOUS, call_pickle, repack

MUTANTS = 1500
REFUSALS = {
    "many_lists": "table of contents is too long",
    "many_lists_legacy": "table of contents is too long",
    "copies_of_a_list": "table of contents is too long",
    "copies_of_a_dictionary": "table of contents is too long",
    "copies_by_attributes": "this file holds something else",
    "colliding_keys": "a dictionary that makes no sense",
    "one_network_in_many_places": "holds several networks",
    "forged_attributes": "something other than dictionaries of tensors",
    "attributes_of_a_function": "something other than dictionaries of tensors",
    "compressed_bomb": "this archive is compressed",
    "compressed_byte_order_bomb": "this archive is compressed",
    "a_directory_of_millions": "the directory of this archive has more than 2,097,152 bytes",
    "a_shape_of_thousands": "a tensor with 50000 dimensions",
    "fractional_offsets": "an impossible size",
    "a_header_of_brackets": "is damaged",
    "a_header_of_many_lists": "the header of this safetensors file has more than 2,097,152 bytes",
    "numbers_in_other_scripts": "has no 'model.18.weight'",
    "numbers_with_zeros": "has no 'model.18.weight'",
    "numbers_of_thousands_of_digits": "no known network has these weights",
    "names_with_escapes": "a tensor name that is too long or not printable",
    "names_without_end": "a tensor name that is too long or not printable",
    "values_beyond_float32": "'model.1.weight' has NaN or infinite values",
    "values_not_finite_in_both_ways": "'model.1.weight' has NaN or infinite values",
    "code_to_run": "refused: loading this file would run or build 'os.system'",
    "a_spec_of_brackets": "spec.json' is damaged",
    "a_spec_without_channels": "layer model.7 has no channels to read or to write",
    "a_spec_of_megabytes": "spec.json' is too large",
}


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


def test_hostile_checkpoints_are_refused_in_little_time_and_memory(seeds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = hostile_checkpoints.write_all(tmp_path / "files")
    fuzzed = read_files("checkpoint", list(files.values()), tmp_path, warm_up=[*seeds, files["code_to_run"]])
    fuzzed.check(len(files))
    ended = {name: fuzzed.sentences[f"read_checkpoint_mutant, {path.name}"] for name, path in files.items()}
    # One file may be two: what counts is that only the one that was looked at is loaded, and nothing is unpacked.
    assert ended.pop("two_files_in_one") == "read"
    assert set(ended) == set(REFUSALS)
    assert [(name, ended[name]) for name, words in REFUSALS.items() if words not in ended[name]] == []


def test_mutants_of_checkpoints_are_read_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    hostile = hostile_files(tmp_path, tmp_path / "sentinel")
    fuzz("checkpoint", seeds, MUTANTS, tmp_path, warm_up=hostile).check(MUTANTS)


@pytest.mark.slow
def test_many_mutants_of_checkpoints_are_read_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    hostile = hostile_files(tmp_path, tmp_path / "sentinel")
    mutants = SLOW_TIMES * MUTANTS
    fuzz("checkpoint", seeds, mutants, tmp_path, warm_up=hostile, batch=2500, seconds=1200).check(mutants)
