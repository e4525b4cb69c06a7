"""`mggc-edge inspect`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.unet import unet_spec
from tests.cli.conftest import PEAK_KILOBYTES, Command, random_network

PAGE = """\
file          generator.pth
kind          checkpoint (SIZE)
generator     resnet_2blocks, instance norm, 3 -> 3 channels, reflection padding
parameters    50,947
MACs (true)   5,947,392 = 5.947 M at 32x32
MACs (paper)  7,716,864 = 7.717 M at 32x32

 writes         layer           channels    size     MACs   share
 ───────────────────────────────────────────────────────────────────────────
 stem           conv 7x7          3 -> 8   32x32   1.20 M   20.2%   ████████
 down1          conv 3x3 /2      8 -> 16   16x16    295 k    5.0%   █▉
 trunk          conv 3x3 /2     16 -> 32     8x8    295 k    5.0%   █▉
 block1.inner   conv 3x3        32 -> 32     8x8    590 k    9.9%   ███▉
 + trunk        conv 3x3        32 -> 32     8x8    590 k    9.9%   ███▉
 block2.inner   conv 3x3        32 -> 32     8x8    590 k    9.9%   ███▉
 + trunk        conv 3x3        32 -> 32     8x8    590 k    9.9%   ███▉
 up1            deconv 3x3 /2   32 -> 16   16x16    295 k    5.0%   █▉
 up2            deconv 3x3 /2    16 -> 8   32x32    295 k    5.0%   █▉
 output         conv 7x7          8 -> 3   32x32   1.20 M   20.2%   ████████

144 prunable channels in 7 groups  stem 8, down1 16, trunk 32, block1.inner 32,
block2.inner 32, up1 16, up2 8
"""


def stripped(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_a_checkpoint_is_shown_as_a_table_that_fits_80_columns(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(random_network().state_dict(), "generator.pth")
    size = f"zip, {Path('generator.pth').stat().st_size / 1e3:.1f} kB"
    ran = command("inspect", "generator.pth", "--image-size", 32)
    assert (ran.code, ran.err) == (0, "")
    assert stripped(ran.out) == PAGE.replace("SIZE", size)


def test_the_json_document_has_every_promised_key(command: Command, material: Path) -> None:
    document = command("inspect", material / "generator.pth", "--image-size", "32x64", "--json").document
    assert {key: document[key] for key in ("schema", "kind", "family", "norm", "parameters", "image_size")} == {
        "schema": "mggc-edge/inspect/1",
        "kind": "checkpoint",
        "family": "resnet_2blocks",
        "norm": "instance",
        "parameters": 50_947,
        "image_size": [32, 64],
    }
    assert document["macs_true"] == 2 * 5_947_392
    assert document["macs_paper"] == 2 * 7_716_864
    assert document["groups"][:3] == [
        {"name": "stem", "channels": 8},
        {"name": "down1", "channels": 16},
        {"name": "trunk", "channels": 32},
    ]
    assert sum(layer["macs_true"] for layer in document["layers"]) == document["macs_true"]


def test_output_writes_the_same_document_to_a_file_and_shows_the_table(
    command: Command, material: Path, tmp_path: Path
) -> None:
    shown = command("inspect", material / "generator.pth", "--json")
    beside = command("inspect", material / "generator.pth", "--output", tmp_path / "o.json")
    assert (tmp_path / "o.json").read_text() == shown.out
    assert "prunable channels" in beside.out


def test_a_plan_shows_what_it_keeps_of_what(command: Command, material: Path) -> None:
    ran = command("inspect", material / "plan.json")
    document = command("inspect", material / "plan.json", "--json").document
    assert "random, seed 1" in ran.out
    assert "of the MACs (true); 0.3 was asked for" in " ".join(ran.out.split())
    assert " of 32" in ran.out
    assert document["kind"] == "plan"
    assert 0.98 * 0.3 <= document["macs_true"] / document["original"]["macs_true"] <= 0.3


def test_a_run_an_onnx_file_a_saved_network_and_a_spec_describe_the_same_slim_network(
    command: Command, material: Path
) -> None:
    places = {
        "run": material / "run",
        "onnx": material / "run/export/portable/generator.fp32.onnx",
        "network": material / "run/slim",
        "spec": material / "run/slim/spec.json",
    }
    documents = {kind: command("inspect", path, "--image-size", 32, "--json").document for kind, path in places.items()}
    assert {document["kind"] for document in documents.values()} == set(places)
    assert len({str(document["groups"]) for document in documents.values()}) == 1
    assert len({document["macs_true"] for document in documents.values()}) == 1


def test_a_discriminator_is_recognised_as_one(command: Command, tmp_path: Path) -> None:
    torch.save(Network(patchgan_spec(ndf=8)).state_dict(), tmp_path / "d.pth")
    document = command("inspect", tmp_path / "d.pth", "--json").document
    assert (document["family"], document["role"]) == ("patchgan", "discriminator")
    assert "discriminator  patchgan" in command("inspect", tmp_path / "d.pth").out


def test_keys_that_the_network_does_not_use_are_counted_with_an_example(command: Command, tmp_path: Path) -> None:
    torch.save({**random_network().state_dict(), "model.2.num_batches_tracked": torch.tensor(3)}, tmp_path / "g.pth")
    ran = command("inspect", tmp_path / "g.pth")
    text = "1 key that this network does not use, such as model.2.num_batches_tracked"
    assert (ran.code, text in " ".join(ran.out.split())) == (0, True)


def test_inspecting_a_checkpoint_loads_no_torch(material: Path) -> None:
    program = (
        "import sys; from mggc_edge.cli.main import run; code = run(sys.argv[1:]); "
        "print(code, sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    words = ["inspect", str(material / "generator.pth")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_wide_terminals_show_the_keys(command: Command, material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    out = command("inspect", material / "generator.pth").out
    assert "model.10.conv_block.1" in out
    assert max(map(len, out.splitlines())) <= 120


def test_a_checkpoint_of_218_megabytes_takes_at_most_2_seconds_and_its_own_size_in_memory(tmp_path: Path) -> None:
    network = Network(unet_spec())
    torch.save(network.state_dict(), tmp_path / "unet_256.pth")
    size = (tmp_path / "unet_256.pth").stat().st_size
    assert size > 217_000_000
    program = (
        "import sys, time; start = time.monotonic(); from mggc_edge.cli.main import run; code = run(sys.argv[1:]); "
        f"took = time.monotonic() - start; print(code, took, 1024 * {PEAK_KILOBYTES})"
    )
    words = ["inspect", str(tmp_path / "unet_256.pth")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    code, seconds, peak = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert float(seconds) <= 2
    # The map of the file, and 100 MB for Python, numpy and Rich: less than importing torch takes.
    assert int(peak) <= size + 100_000_000
