"""Checkpoints as they are found in the world load, and give back the network that was saved."""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mggc_edge.errors import CheckpointError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.checkpoint import Direction, read_checkpoint
from mggc_edge.models.convert import fold_batch_norm
from mggc_edge.models.families import infer_spec
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network, save_network, weights_sha256
from tests.models.checkpoint_files import FORMATS, Format, State, assert_loads, assert_same_weights, saved, state_of
from tests.models.model_helpers import (
    NORMS,
    all_kept,
    network_of,
    picture_for,
    run,
    small_networks,
    small_resnets,
    some_kept,
    spec_id,
)
from tests.models.reference_networks import ResnetGenerator, UnetGenerator

# Dropout leaves no trace in a U-Net's keys, so it is taken as pix2pix has it.
FROM_KEYS = [spec for spec in small_networks() if spec.family != "unet" or spec.dropout]


def float32(spec: NetworkSpec, seed: int = 0) -> Network:
    return network_of(spec, seed=seed, dtype=torch.float32)


@pytest.fixture
def resnet() -> Network:
    return float32(resnet_spec(blocks=2, ngf=4))


# --- every network, in every format ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("spec", FROM_KEYS, ids=spec_id)
def test_a_bare_state_dict_gives_spec_and_weights_back(spec: NetworkSpec, form: Format, tmp_path: Path) -> None:
    network = float32(spec)
    path = saved(tmp_path / "net.pth", network.state_dict(), form)
    loaded = assert_loads(path, network)
    picture = picture_for(network)
    assert torch.equal(loaded(picture), network(picture))
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == form
    assert checkpoint.size_bytes == path.stat().st_size
    assert set(checkpoint.tensors) == set(network.table.tensors)
    assert checkpoint.name == ""
    assert checkpoint.others == ()
    assert all(key.endswith("num_batches_tracked") for key in checkpoint.ignored)


@pytest.mark.parametrize(
    "spec",
    [
        resnet_spec(),
        resnet_spec(blocks=6, ngf=32, dropout=True),
        resnet_spec(norm="batch", padding="zeros", dropout=True),
        resnet_spec(ngf=48, separable=True, dropout=True),
        resnet_spec(blocks=1),
        resnet_spec(blocks=30, in_channels=1, out_channels=4),
        unet_spec(),
        unet_spec(halvings=7),
        unet_spec(halvings=5, norm="instance", in_channels=4, out_channels=1),
        unet_spec(halvings=2),
        cartoongan_spec(),
        cartoongan_spec(blocks=1, ngf=16, in_channels=1, out_channels=4),
        patchgan_spec(),
        patchgan_spec(in_channels=6, ndf=128, norm="batch"),
        patchgan_spec(layers=1),
        patchgan_spec(layers=5, norm="instance_affine"),
    ],
    ids=spec_id,
)
def test_the_spec_is_read_from_names_and_shapes_alone(spec: NetworkSpec) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Network(spec).state_dict().items()}
    assert infer_spec(shapes) == spec


def test_a_checkpoint_of_the_reference_implementation_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    resnet = ResnetGenerator(3, 3, 8, 6, "instance").eval()
    unet = UnetGenerator(3, 3, 8, 7, "batch").eval()
    for network, size in ((resnet, 32), (unet, 128)):
        loaded = load_network(saved(tmp_path / "latest_net_G.pth", network.state_dict()), image_size=(size, size))
        picture = torch.rand(1, 3, size, size) * 2 - 1
        assert torch.equal(run(loaded, picture), run(network, picture))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("family", ["resnet", "unet"])
def test_pictures_may_have_one_or_four_channels(family: str, channels: int, tmp_path: Path) -> None:
    spec = resnet_spec(blocks=1, ngf=4) if family == "resnet" else unet_spec(halvings=5, ngf=4)
    spec = replace(spec, in_channels=channels, out_channels=5 - channels)
    assert_loads(saved(tmp_path / "net.pth", float32(spec).state_dict()), float32(spec))


# --- where in the file the network is ---


@pytest.mark.parametrize("prefix", ["module.", "module.module.", "module.module.module."])
@pytest.mark.parametrize("form", FORMATS)
def test_prefixes_of_data_parallel_are_taken_away(resnet: Network, prefix: str, form: Format, tmp_path: Path) -> None:
    state = {prefix + key: value for key, value in resnet.state_dict().items()}
    assert_loads(saved(tmp_path / "net.pth", state, form), resnet)


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (("state_dict",), "state_dict"),
        (("G",), "G"),
        (("netG_A",), "netG_A"),
        (("model",), "model"),
        (("params_ema",), "params_ema"),
        (("checkpoint", "nets", "generator"), "checkpoint.nets.generator"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_the_network_may_be_held_by_dictionaries(
    resnet: Network, holder: tuple[str, ...], name: str, form: Format, tmp_path: Path
) -> None:
    content: dict[str, Any] = dict(resnet.state_dict())
    for key in reversed(holder):
        content = {"epoch": 200, "best": None, "loss": [0.5, 0.25], "lr": (0.1, 2), "flag": True, key: content}
    path = saved(tmp_path / "net.pth", content, form)
    assert_loads(path, resnet)
    assert read_checkpoint(path).name == name


@pytest.mark.parametrize("spec", [resnet_spec(blocks=2, ngf=4), unet_spec(halvings=5, ngf=4)], ids=spec_id)
@pytest.mark.parametrize("prefix", ["model.", "netG.", "generator.net.", "module.netG.module."])
def test_the_network_may_be_an_attribute_of_a_larger_module(spec: NetworkSpec, prefix: str, tmp_path: Path) -> None:
    network = float32(spec)
    state = {prefix + key: value for key, value in network.state_dict().items()}
    assert_loads(saved(tmp_path / "net.pth", state), network)


def test_a_lightning_checkpoint_with_four_networks_gives_the_generator_of_the_direction(tmp_path: Path) -> None:
    networks = {
        "netG_A": float32(resnet_spec(blocks=2, ngf=4), 1),
        "netG_B": float32(resnet_spec(blocks=2, ngf=4), 2),
        "netD_A": float32(patchgan_spec(ndf=4), 3),
        "netD_B": float32(patchgan_spec(ndf=4), 4),
    }
    state = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    content = {
        "epoch": 9,
        "global_step": 1000,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 1}}}},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
    }
    path = saved(tmp_path / "epoch=9.ckpt", content)
    assert_loads(path, networks["netG_A"])
    assert_loads(path, networks["netG_A"], direction="AtoB")
    assert_loads(path, networks["netG_B"], direction="BtoA")
    checkpoint = read_checkpoint(path, direction="BtoA")
    assert checkpoint.name == "state_dict.netG_B"
    assert checkpoint.others == ("state_dict.netG_A", "state_dict.netD_A", "state_dict.netD_B")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("G_A", "G_B"),
        ("netG_A", "netG_B"),
        ("G_A2B", "G_B2A"),
        ("genA2B", "genB2A"),
        ("G_AB", "G_BA"),
        ("gAtoB", "gBtoA"),
    ],
)
def test_of_two_generators_the_direction_says_which(first: str, second: str, tmp_path: Path) -> None:
    a, b = (float32(resnet_spec(blocks=1, ngf=4), seed) for seed in (1, 2))
    path = saved(tmp_path / "both.pth", {second: b.state_dict(), first: a.state_dict()})
    wanted: tuple[tuple[Direction, Network, str, str], ...] = (("AtoB", a, first, second), ("BtoA", b, second, first))
    for direction, network, name, other in wanted:
        assert_loads(path, network, direction=direction)
        checkpoint = read_checkpoint(path, direction=direction)
        assert (checkpoint.name, checkpoint.others) == (name, (other,))


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_one_generator_is_taken_whatever_the_direction(resnet: Network, direction: str, tmp_path: Path) -> None:
    content = {"netG_A": resnet.state_dict(), "netD_A": float32(patchgan_spec(ndf=4)).state_dict()}
    assert_loads(saved(tmp_path / "net.pth", content), resnet, direction=direction)


@pytest.mark.parametrize("spec", [patchgan_spec(ndf=4), patchgan_spec(ndf=4, in_channels=6, norm="batch")], ids=spec_id)
def test_a_discriminator_alone_is_recognised(spec: NetworkSpec, tmp_path: Path) -> None:
    path = saved(tmp_path / "latest_net_D.pth", float32(spec).state_dict())
    assert_loads(path, float32(spec))
    assert read_checkpoint(path).role == "discriminator"
    assert read_checkpoint(saved(path, float32(resnet_spec(blocks=1, ngf=4)).state_dict())).role == "generator"


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_optimizer_and_scheduler_states_beside_the_network_do_not_matter(
    resnet: Network, form: Format, tmp_path: Path
) -> None:
    trained = network_of(resnet.spec, dtype=torch.float32).train()
    optimizer = torch.optim.Adam(trained.parameters(), lr=2e-4, betas=(0.5, 0.999))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    trained(picture_for(trained)).sum().backward()
    optimizer.step()
    scheduler.step()
    content = {
        "optimizer": optimizer.state_dict(),
        "scheduler": {key: value for key, value in scheduler.state_dict().items() if key != "lr_lambdas"},
        "netG": trained.state_dict(),
    }
    path = saved(tmp_path / "all.pth", content, form)
    assert_loads(path, trained)
    assert read_checkpoint(path).others == ()


# --- what the tensors are like ---


@pytest.mark.parametrize("lowest_byte", [0x00, 0x50, 0x80])
def test_a_safetensors_file_is_known_whatever_the_length_of_its_header(
    resnet: Network, lowest_byte: int, tmp_path: Path
) -> None:
    # The length comes first in the file. Its lowest byte is that of a pickle (0x80) in one file of 32.
    from safetensors.torch import save

    content = b""
    for padding in range(256):
        content = save(dict(resnet.state_dict()), metadata={"padding": padding * "x"})
        if content[0] == lowest_byte:
            break
    assert content[0] == lowest_byte
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    assert_loads(path, resnet)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", FORMATS)
def test_other_precisions_load_as_float32(form: Format, dtype: torch.dtype, tmp_path: Path) -> None:
    network = float32(unet_spec(halvings=5, ngf=4))
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    loaded = load_network(saved(tmp_path / "net.pth", state, form))
    assert loaded.spec == network.spec
    assert_same_weights(loaded, {key: value.float() for key, value in state.items()})


def test_denormal_and_extreme_half_precision_values_load_exactly(resnet: Network, tmp_path: Path) -> None:
    for dtype, extremes in (
        (torch.float16, [65504.0, -65504.0, 5.960464477539063e-08, -0.0]),
        (torch.bfloat16, [3.3895313892515355e38, -3.3895313892515355e38, 9.183549615799121e-41, -0.0]),
    ):
        state = {key: value.to(dtype) for key, value in resnet.state_dict().items()}
        state["model.1.bias"] = torch.tensor(extremes, dtype=dtype)
        loaded = load_network(saved(tmp_path / "net.pth", state)).state_dict()["model.1.bias"]
        assert loaded.tolist() == extremes
        assert bool(torch.signbit(loaded[3]))


def test_parameters_in_place_of_tensors_load(resnet: Network, tmp_path: Path) -> None:
    for form in ("zip", "legacy"):
        assert_loads(saved(tmp_path / "net.pth", dict(resnet.named_parameters()), form), resnet)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_in_any_memory_order_load(resnet: Network, form: Format, tmp_path: Path) -> None:
    state = state_of(resnet)
    state["model.4.weight"] = state["model.4.weight"].to(memory_format=torch.channels_last)
    state["model.7.weight"] = state["model.7.weight"].permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not state["model.4.weight"].is_contiguous()
    assert_loads(saved(tmp_path / "net.pth", state, form), resnet)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_that_are_views_of_one_storage_load(resnet: Network, form: Format, tmp_path: Path) -> None:
    flat = torch.cat([value.flatten() for value in resnet.state_dict().values()])
    state, start = {}, 0
    for key, value in resnet.state_dict().items():
        state[key] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel()
    assert_loads(saved(tmp_path / "net.pth", state, form), resnet)


def test_weights_saved_from_a_gpu_load_without_one(resnet: Network, tmp_path: Path) -> None:
    source = saved(tmp_path / "cpu.pth", resnet.state_dict())
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(tmp_path / "cuda.pth", "w") as changed:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"X\x03\0\0\0cpu" in data
                data = data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            changed.writestr(entry, data)
    assert_loads(tmp_path / "cuda.pth", resnet)


# --- left-overs and gaps that are known ---


def with_statistics(network: Network) -> State:
    """The state dict with the running statistics that PyTorch before 0.4 kept in instance norms."""
    state = state_of(network)
    torch.manual_seed(5)
    for layer in network.table.layers:
        if layer.norm is not None:
            state[f"{layer.norm}.running_mean"] = torch.randn(layer.out_channels) * 0.1
            state[f"{layer.norm}.running_var"] = torch.rand(layer.out_channels) + 0.5
            state[f"{layer.norm}.num_batches_tracked"] = torch.tensor(7)
    return state


@pytest.mark.parametrize(
    "spec",
    [resnet_spec(blocks=2, ngf=4), unet_spec(halvings=5, ngf=4, norm="instance"), patchgan_spec(ndf=4)],
    ids=spec_id,
)
def test_running_statistics_left_in_plain_instance_norms_are_ignored(spec: NetworkSpec, tmp_path: Path) -> None:
    network = float32(spec)
    path = saved(tmp_path / "net.pth", with_statistics(network))
    assert_loads(path, network)
    norms = sum(layer.norm is not None for layer in network.table.layers)
    assert len(read_checkpoint(path).ignored) == 3 * norms


def test_running_statistics_left_in_affine_instance_norms_are_ignored(tmp_path: Path) -> None:
    network = float32(resnet_spec(blocks=2, ngf=4, norm="instance_affine"))
    assert_loads(saved(tmp_path / "net.pth", with_statistics(network)), network)


def test_running_statistics_in_affine_instance_norms_are_used_when_that_is_asked_for(tmp_path: Path) -> None:
    network = float32(resnet_spec(blocks=2, ngf=4, norm="instance_affine"))
    state = with_statistics(network)
    loaded = load_network(saved(tmp_path / "net.pth", state), norm_stats="running")
    assert loaded.spec == replace(network.spec, norm="batch")
    assert loaded.spec.bias
    assert_same_weights(loaded, state)


def test_running_statistics_in_plain_instance_norms_are_used_when_that_is_asked_for(tmp_path: Path) -> None:
    network = float32(resnet_spec(blocks=2, ngf=4))
    state = with_statistics(network)
    loaded = load_network(saved(tmp_path / "net.pth", state), norm_stats="running")
    assert loaded.spec.norm == "batch"
    tracking = ResnetGenerator(3, 3, 4, 2, "instance")
    for module in list(tracking.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.InstanceNorm2d):
                setattr(module, name, torch.nn.InstanceNorm2d(child.num_features, track_running_stats=True))
    tracking.load_state_dict(state)
    picture = picture_for(network)
    expected = run(tracking.eval(), picture)
    assert float((run(loaded, picture) - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("spec", [spec for spec in FROM_KEYS if spec.norm == "batch"], ids=spec_id)
def test_old_batch_norms_without_num_batches_tracked_load(spec: NetworkSpec, tmp_path: Path) -> None:
    network = float32(spec)
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    loaded = assert_loads(saved(tmp_path / "net.pth", state), network)
    assert int(loaded.state_dict()[next(k for k in network.state_dict() if k.endswith("tracked"))]) == 0


@pytest.mark.parametrize("prefix", ["", "module.", "netG."])
def test_buffers_of_a_profiler_are_ignored(resnet: Network, prefix: str, tmp_path: Path) -> None:
    state = state_of(resnet)
    owners = ("model.1.", "model.2.", "model.10.", "model.10.conv_block.1.", "model.", "")
    for owner in owners:
        state[f"{owner}total_ops"] = torch.tensor([1.0])
        state[f"{owner}total_params"] = torch.tensor([2.0])
    path = saved(tmp_path / "net.pth", {prefix + key: value for key, value in state.items()})
    assert_loads(path, resnet)


@pytest.mark.parametrize("spec", small_resnets(blocks=2)[::3], ids=spec_id)
def test_the_second_convolution_of_a_block_tells_padding_and_dropout(spec: NetworkSpec, tmp_path: Path) -> None:
    network = float32(spec)
    second = {("reflect", False): 5, ("reflect", True): 6, ("zeros", False): 3, ("zeros", True): 4}
    key = f"model.11.conv_block.{second[spec.padding, spec.dropout]}{'.conv.2' if spec.separable else ''}.weight"
    assert key in network.state_dict()
    loaded = load_network(saved(tmp_path / "net.pth", network.state_dict()))
    assert (loaded.spec.padding, loaded.spec.dropout) == (spec.padding, spec.dropout)


# --- networks that have been slimmed already ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("spec", FROM_KEYS, ids=spec_id)
def test_a_slim_network_gives_its_widths_back(spec: NetworkSpec, form: Format, tmp_path: Path) -> None:
    network = slim(float32(spec), some_kept(spec, 4, remove_blocks=False))
    assert network.spec.widths != spec.widths
    assert_loads(saved(tmp_path / "net.pth", network.state_dict(), form), network)


@pytest.mark.parametrize("removed", [(1,), (2,), (3,), (1, 2), (2, 3), (1, 3)])
@pytest.mark.parametrize("spec", small_resnets(), ids=spec_id)
def test_a_slim_network_without_some_blocks_gives_its_widths_back(
    spec: NetworkSpec, removed: tuple[int, ...], tmp_path: Path
) -> None:
    kept = some_kept(spec, 4, remove_blocks=False)
    network = slim(float32(spec), {**kept, **{f"block{block}.inner": () for block in removed}})
    constants = {key for key in network.state_dict() if key.endswith(".constant")}
    assert constants == (set() if spec.norm == "instance" else {f"model.{9 + block}.constant" for block in removed})
    assert_loads(saved(tmp_path / "net.pth", network.state_dict()), network)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_slim_network_without_any_block_computes_the_same(form: Format, norm: str, tmp_path: Path) -> None:
    # Nothing is left that tells padding, dropout and separable, and nothing that they would matter to.
    spec = resnet_spec(blocks=3, ngf=4, norm=norm, padding="zeros", dropout=True)  # type: ignore[arg-type]
    network = slim(float32(spec), {**all_kept(spec), **{f"block{block}.inner": () for block in (1, 2, 3)}})
    loaded = load_network(saved(tmp_path / "net.pth", network.state_dict(), form))
    assert loaded.spec == replace(network.spec, padding="reflect", dropout=False)
    picture = picture_for(network)
    assert torch.equal(run(loaded, picture), run(network, picture))


# --- folders that this package wrote ---


def every_saved_network() -> list[Network]:
    networks = [float32(spec) for spec in small_networks()]
    networks += [slim(network, some_kept(network.spec, 3)) for network in networks]
    networks += [fold_batch_norm(network) for network in networks if network.spec.norm == "batch"]
    return networks


def test_a_saved_folder_gives_spec_and_weights_back(tmp_path: Path) -> None:
    for index, network in enumerate(every_saved_network()):
        folder = tmp_path / "nets" / str(index)
        save_network(network, folder)
        assert sorted(path.name for path in folder.iterdir()) == ["spec.json", "weights.safetensors"]
        assert_loads(folder, network)
        assert weights_sha256(load_network(folder)) == weights_sha256(network)


def test_saving_over_a_saved_network_replaces_it(tmp_path: Path) -> None:
    for spec in (resnet_spec(blocks=1, ngf=4), patchgan_spec(ndf=4)):
        save_network(float32(spec), tmp_path)
        assert_loads(tmp_path, float32(spec))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.json", "weights.safetensors"]


def test_spec_json_is_the_whole_description(resnet: Network, tmp_path: Path) -> None:
    save_network(resnet, tmp_path)
    assert json.loads((tmp_path / "spec.json").read_text()) == {
        "schema": "mggc-edge/spec/1",
        "family": "resnet",
        "in_channels": 3,
        "out_channels": 3,
        "blocks": 2,
        "widths": {
            "stem": 4, "down1": 8, "trunk": 16, "block1.inner": 16, "block2.inner": 16, "up1": 8, "up2": 4,
        },
        "norm": "instance",
        "bias": True,
        "padding": "reflect",
        "dropout": False,
        "separable": False,
        "epsilon": 1e-5,
        "color_order": "RGB",
        "low": -1.0,
        "high": 1.0,
        "quantization": "none",
    }  # fmt: skip


def test_the_hash_of_weights_depends_on_them_and_on_the_spec_and_not_on_the_file(
    resnet: Network, tmp_path: Path
) -> None:
    hashes = {weights_sha256(load_network(saved(tmp_path / form, resnet.state_dict(), form))) for form in FORMATS}
    assert hashes == {weights_sha256(resnet)}
    other = float32(resnet.spec)
    other.get_parameter("model.1.weight").data[0, 0, 0, 0] += 1e-3
    without = float32(replace(resnet.spec, in_channels=1))
    assert len({weights_sha256(network) for network in (resnet, other, without)}) == 3


def test_a_loaded_network_does_not_hang_on_the_file(resnet: Network, tmp_path: Path) -> None:
    for form in FORMATS:
        path = saved(tmp_path / "net.pth", resnet.state_dict(), form)
        loaded = load_network(path)
        path.write_bytes(bytes(path.stat().st_size))
        assert_same_weights(loaded, resnet.state_dict())
        loaded.get_parameter("model.1.weight").data.zero_()


def test_the_picture_size_is_that_which_was_asked_for(resnet: Network, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", resnet.state_dict())
    assert load_network(path).table.image_size == (256, 256)
    assert load_network(path, image_size=(64, 32)).table.image_size == (64, 32)


# --- GAN Slimming, whose trunk norms have no parameters ---


def test_norms_of_the_trunk_without_parameters_have_scale_one_and_shift_zero(tmp_path: Path) -> None:
    network = float32(resnet_spec(blocks=2, ngf=4, norm="instance_affine"), seed=3)
    trunk = [str(layer.norm) for layer in network.table.layers if layer.output == "trunk"]
    assert len(trunk) == 3
    state = {key: value for key, value in network.state_dict().items() if key.rpartition(".")[0] not in trunk}
    path = saved(tmp_path / "net.pth", state, FORMATS[0])
    loaded = load_network(path)
    assert loaded.spec == network.spec
    found = loaded.state_dict()
    for norm in trunk:
        assert found[f"{norm}.weight"].tolist() == [1.0] * 16
        assert found[f"{norm}.bias"].tolist() == [0.0] * 16
    assert_same_weights(loaded, {**found, **state})


def test_where_one_of_those_norms_has_parameters_none_may_be_missing(tmp_path: Path) -> None:
    network = float32(resnet_spec(blocks=2, ngf=4, norm="instance_affine"), seed=3)
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("model.8.")}
    path = saved(tmp_path / "net.pth", state, FORMATS[0])
    with pytest.raises(CheckpointError, match=r"is missing 'model\.8\.weight', 'model\.8\.bias'"):
        read_checkpoint(path)
