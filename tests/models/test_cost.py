"""Parameters and MACs: the published figures, and counts taken from real networks while they run."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mggc_edge.errors import SpecError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.cost import MacsConvention, layer_macs, macs, parameters
from mggc_edge.models.families import family_of, layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.budget import kept_macs
from tests.models.model_helpers import network_of, picture_for, run, small_networks, some_kept, spec_id
from tests.models.reference_networks import NORMS, PatchDiscriminator, ResnetGenerator, UnetGenerator

CONVENTIONS: tuple[MacsConvention, ...] = ("true", "paper")


def hooked_macs(network: nn.Module, picture: Tensor) -> dict[MacsConvention, int]:
    """Multiplications that the convolutions of a network do for one picture, seen while it runs."""
    counted: dict[MacsConvention, int] = {"true": 0, "paper": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        positions_in = inputs[0].shape[2] * inputs[0].shape[3]
        positions_out = output.shape[2] * output.shape[3]
        counted["paper"] += positions_out * weight.numel()
        counted["true"] += (positions_in if isinstance(module, nn.ConvTranspose2d) else positions_out) * weight.numel()

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    run(network, picture)
    for hook in hooks:
        hook.remove()
    return counted


def trainable(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- the published figures, at 256x256 ---


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        (resnet_spec(), 11_378_179),
        (resnet_spec(blocks=6), 7_837_699),
        (unet_spec(), 54_413_955),
        (unet_spec(ngf=32), 13_608_259),
        (unet_spec(ngf=16), 3_404_451),
        (cartoongan_spec(), 11_129_667),
        (patchgan_spec(), 2_764_737),
        (patchgan_spec(in_channels=6, norm="batch"), 2_768_705),
        (patchgan_spec(in_channels=6, ndf=128, norm="batch"), 11_042_433),
    ],
)
def test_parameters_are_the_published_number(spec: NetworkSpec, count: int) -> None:
    assert parameters(layer_table(spec)) == count
    with torch.device("meta"):
        assert trainable(Network(spec)) == count


@pytest.mark.parametrize(
    ("spec", "true", "paper"),
    [
        (resnet_spec(), 49_551_507_456, 56_799_264_768),
        (unet_spec(), 6_048_186_368, 18_140_364_800),
        (cartoongan_spec(), 54_383_345_664, 61_631_102_976),
    ],
)
def test_macs_at_256x256_are_the_published_number(spec: NetworkSpec, true: int, paper: int) -> None:
    table = layer_table(spec, (256, 256))
    assert (macs(table, "true"), macs(table, "paper")) == (true, paper)


@pytest.mark.parametrize(
    ("spec", "convention", "printed"),
    [
        (resnet_spec(blocks=6), "paper", "42.304"),
        (resnet_spec(blocks=6), "true", "35.056"),
        (unet_spec(ngf=32), "paper", "4.648"),
        (unet_spec(ngf=32), "true", "1.550"),
        (unet_spec(ngf=16), "paper", "1.219"),
        (unet_spec(ngf=16), "true", "0.406"),
        (resnet_spec(ngf=48, separable=True), "paper", "10.56"),
        (resnet_spec(ngf=48, separable=True), "true", "6.49"),
        (resnet_spec(ngf=24, separable=True), "paper", "2.904"),
        (resnet_spec(ngf=24, separable=True), "true", "1.885"),
        (resnet_spec(ngf=16, separable=True), "paper", "1.408"),
        (resnet_spec(ngf=16, separable=True), "true", "0.955"),
        (patchgan_spec(), "true", "3.147"),
        (patchgan_spec(in_channels=6), "true", "3.197"),
        (patchgan_spec(in_channels=6, ndf=128), "paper", "12.57"),
    ],
)
def test_giga_macs_at_256x256_are_as_printed(spec: NetworkSpec, convention: MacsConvention, printed: str) -> None:
    digits = len(printed.partition(".")[2])
    assert f"{macs(layer_table(spec, (256, 256)), convention) / 1e9:.{digits}f}" == printed


def test_mobile_resnet_9_has_18_314_428_416_macs_in_the_literatures_convention() -> None:
    table = layer_table(resnet_spec(separable=True), (256, 256))
    assert macs(table, "paper") == 18_314_428_416
    assert macs(table, "true") == 18_314_428_416 - (56_799_264_768 - 49_551_507_456)


@pytest.mark.parametrize(
    ("spec", "groups", "gates"),
    [
        (resnet_spec(), 14, 2_944),
        (resnet_spec(blocks=6), 11, 2_176),
        (unet_spec(), 15, 5_504),
        (cartoongan_spec(), 17, 3_264),
        (patchgan_spec(), 4, 960),
        (patchgan_spec(ndf=128), 4, 1_920),
    ],
)
def test_number_of_gates(spec: NetworkSpec, groups: int, gates: int) -> None:
    found = layer_table(spec).groups
    assert (len(found), sum(group.size for group in found)) == (groups, gates)


def test_the_trunk_of_a_resnet_is_one_group_through_all_blocks() -> None:
    groups = {group.name: group for group in layer_table(resnet_spec(blocks=2, ngf=4)).groups}
    assert groups["trunk"].writers == ("model.7", "model.10.conv_block.5", "model.11.conv_block.5")
    assert groups["trunk"].readers == ("model.10.conv_block.1", "model.11.conv_block.1", "model.12")
    assert groups["block2.inner"].writers == ("model.11.conv_block.1",)
    assert groups["block2.inner"].readers == ("model.11.conv_block.5",)
    assert {name: group.minimum for name, group in groups.items()} == {
        "stem": 1, "down1": 1, "trunk": 1, "block1.inner": 0, "block2.inner": 0, "up1": 1, "up2": 1,
    }  # fmt: skip


def test_a_skip_connection_of_a_unet_ties_no_widths() -> None:
    table = layer_table(unet_spec(halvings=5, ngf=4))
    groups = {group.name: group for group in table.groups}
    rows = {layer.name: layer for layer in table.layers}
    assert list(groups) == ["down1", "down2", "down3", "down4", "down5", "up5", "up4", "up3", "up2"]
    assert groups["down2"].writers == ("model.model.1.model.1",)
    assert groups["down2"].readers == ("model.model.1.model.3.model.1", "model.model.1.model.5")
    assert rows["model.model.1.model.5"].inputs == ("down2", "up3")  # the skip comes first


# --- counted on real networks ---


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_the_reference_networks_have_the_published_number_of_parameters(norm: str) -> None:
    with torch.device("meta"):
        counts = (
            trainable(ResnetGenerator(3, 3, 64, 9, norm)),
            trainable(UnetGenerator(3, 3, 64, 8, norm)),
            trainable(PatchDiscriminator(3, 64, 3, norm)),
        )
    specs = (
        resnet_spec(norm=norm),  # type: ignore[arg-type]
        unet_spec(norm=norm),  # type: ignore[arg-type]
        patchgan_spec(norm=norm),  # type: ignore[arg-type]
    )
    assert counts == tuple(parameters(layer_table(spec)) for spec in specs)


@pytest.mark.parametrize("spec", small_networks(), ids=spec_id)
def test_macs_and_parameters_are_what_a_running_network_shows(spec: NetworkSpec) -> None:
    network = network_of(spec, dtype=torch.float32)
    counted = hooked_macs(network, picture_for(network))
    assert counted == {convention: macs(network.table, convention) for convention in CONVENTIONS}
    assert counted["paper"] > counted["true"] or spec.family == "patchgan"
    assert trainable(network) == parameters(network.table)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spec", small_networks(), ids=spec_id)
def test_macs_and_parameters_of_a_plan_are_what_the_slim_network_shows(spec: NetworkSpec, seed: int) -> None:
    network = network_of(spec, dtype=torch.float32)
    kept = some_kept(spec, seed)
    slender = slim(network, kept)
    table = layer_table(slim_spec(spec, kept), network.table.image_size)
    counted = hooked_macs(slender, picture_for(slender))
    assert counted == {convention: kept_macs(network.table, kept, convention) for convention in CONVENTIONS}
    assert counted == {convention: macs(table, convention) for convention in CONVENTIONS}
    assert trainable(slender) == parameters(table) < parameters(network.table)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("spec", small_networks()[::5], ids=spec_id)
def test_sizes_in_the_table_are_those_of_the_running_network(spec: NetworkSpec, convention: MacsConvention) -> None:
    network = network_of(spec, dtype=torch.float32)
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for layer in network.table.layers:

        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = layer.name) -> None:
            seen[name] = (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))

        network.get_submodule(layer.name).register_forward_hook(note)
    run(network, picture_for(network))
    for layer in network.table.layers:
        pad = 2 * layer.padding if layer.padding_mode == "reflect" else 0  # padded before the convolution sees it
        assert seen[layer.name] == (
            (layer.in_channels, layer.in_size[0] + pad, layer.in_size[1] + pad),
            (layer.out_channels, *layer.out_size),
        )
    assert sum(layer_macs(layer, convention) for layer in network.table.layers) == macs(network.table, convention)


def test_macs_grow_with_the_area_of_the_picture() -> None:
    spec = resnet_spec(blocks=2, ngf=4)
    assert macs(layer_table(spec, (64, 128))) == 8 * macs(layer_table(spec, (32, 32)))


def test_a_constant_that_stands_for_a_removed_block_costs_no_macs_and_one_parameter_per_channel() -> None:
    spec = resnet_spec(blocks=1, ngf=4, norm="instance_affine")
    without = layer_table(spec.with_widths({"block1.inner": 0}))
    (row,) = [layer for layer in without.layers if layer.op == "constant"]
    assert [layer_macs(row, convention) for convention in CONVENTIONS] == [0, 0]
    assert math.prod(without.tensors["model.10.constant"].shape) == 16
    plain = layer_table(resnet_spec(blocks=1, ngf=4).with_widths({"block1.inner": 0}))
    assert [layer.op for layer in plain.layers] == ["conv"] * 3 + ["conv_transpose"] * 2 + ["conv"]
    assert parameters(without) == parameters(plain) + 16 + 2 * (4 + 8 + 16 + 8 + 4)  # gamma and beta of 5 norms


# --- sizes at which a network cannot run ---


@pytest.mark.parametrize(
    ("spec", "size", "text"),
    [
        (resnet_spec(), (254, 256), "a ResNet generator cannot run at 254x256"),
        (resnet_spec(), (256, 4), "a ResNet generator cannot run at 256x4"),
        (unet_spec(), (256, 128), "a U-Net that halves the picture 8 times cannot run at 256x128"),
        (unet_spec(halvings=13), (8192, 8192), "a U-Net has between 2 and 12 halvings, not 13"),
        (unet_spec(halvings=1), (2, 2), "a U-Net has between 2 and 12 halvings, not 1"),
        (patchgan_spec(), (16, 16), "a picture of 16x16 is too small for this network"),
        (patchgan_spec(layers=9), (4096, 4096), "a PatchGAN has at most 8 layers, not 9"),
    ],
)
def test_a_size_at_which_the_network_cannot_run_is_refused(spec: NetworkSpec, size: tuple[int, int], text: str) -> None:
    with pytest.raises(SpecError) as error:
        layer_table(spec, size)
    assert error.value.message == text


@pytest.mark.parametrize(
    "spec", [resnet_spec(blocks=1, ngf=2), unet_spec(halvings=2, ngf=2), patchgan_spec(ndf=2)], ids=spec_id
)
def test_the_smallest_picture_that_is_not_refused_runs(spec: NetworkSpec) -> None:
    smallest = None
    for side in range(1, 64):
        try:
            layer_table(spec, (side, side))
        except SpecError:
            continue
        smallest = side
        break
    assert smallest == {"resnet": 8, "unet": 4, "patchgan": 24}[spec.family]
    network = network_of(spec, size=(smallest, smallest))
    output = run(network, picture_for(network))
    assert tuple(output.shape[2:]) == network.table.layers[-1].out_size


def test_families_know_their_titles_and_roles() -> None:
    specs = [resnet_spec(), resnet_spec(separable=True), unet_spec(), unet_spec(halvings=7), patchgan_spec()]
    assert [(family_of(spec).title(spec), family_of(spec).role) for spec in specs] == [
        ("resnet_9blocks", "generator"),
        ("mobile_resnet_9blocks", "generator"),
        ("unet_256", "generator"),
        ("unet_128", "generator"),
        ("patchgan", "discriminator"),
    ]
