"""Torch-Pruning, which finds channel groups by tracing, cuts the same channels out of the same layers as `slim`."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from mggc_edge.models.network import Network
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from tests.models.model_helpers import (
    Kept,
    difference,
    network_of,
    picture_for,
    run,
    small_networks,
    some_kept,
    spec_id,
)
from tests.models.reference_networks import PerPictureNorm, reference_network

Touched = dict[str, tuple[set[str], set[str]]]

# Torch-Pruning 1.6 cannot trace an instance norm next to a concatenation: U-Nets come with batch norm only.
TRACEABLE = [spec for spec in small_networks() if spec.family != "unet" or spec.norm == "batch"]

every_network = pytest.mark.parametrize("spec", TRACEABLE, ids=spec_id)


class PerPictureNormPruner(tp.function.BasePruningFunc):  # type: ignore[misc]
    """How Torch-Pruning cuts channels out of CartoonGAN's norm."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """Cut channels out of scale and shift."""
        assert isinstance(layer, PerPictureNorm)
        keep = sorted(set(range(len(layer.scale))) - set(idxs))
        layer.scale, layer.shift = nn.Parameter(layer.scale[keep]), nn.Parameter(layer.shift[keep])
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        """Return how many there are."""
        assert isinstance(layer, PerPictureNorm)
        return len(layer.scale)

    get_in_channels = get_out_channels


def reference_of(network: Network) -> nn.Module:
    reference = reference_network(network.spec)
    reference.load_state_dict(network.state_dict())
    return reference.to(next(network.parameters()).dtype)


def pruned(reference: nn.Module, network: Network, kept: Kept) -> tuple[nn.Module, Touched]:
    """Return the reference with all channels but `kept` cut out, and per group what was (written, read)."""
    reference = copy.deepcopy(reference)
    names = {module: name for name, module in reference.named_modules()}
    graph = tp.DependencyGraph().build_dependency(
        reference, example_inputs=picture_for(network), customized_pruners={PerPictureNorm: PerPictureNormPruner()}
    )
    touched: Touched = {}
    for group in network.table.groups:
        root = reference.get_submodule(group.writers[0])
        removed = sorted(set(range(group.size)) - set(kept[group.name]))
        found = graph.get_pruning_group(root, tp.prune_conv_out_channels, removed or [0])
        written, read = set[str](), set[str]()
        for dependency, _ in found:
            if isinstance(dependency.target.module, (nn.Conv2d, nn.ConvTranspose2d)):
                side = written if dependency.handler.__name__ == "prune_out_channels" else read
                side.add(names[dependency.target.module])
        touched[group.name] = (written, read)
        if removed:
            found.prune()
    return reference, touched


@every_network
def test_groups_are_those_that_tracing_finds(spec: NetworkSpec) -> None:
    network = network_of(spec)
    kept = {group.name: tuple(range(group.size)) for group in network.table.groups}
    _, touched = pruned(reference_of(network), network, kept)
    # A depthwise convolution writes what it reads; Torch-Pruning counts it as a writer.
    depthwise = {layer.name for layer in network.table.layers if layer.op == "depthwise_conv"}
    expected = {
        group.name: (set(group.writers), set(group.readers) - depthwise) for group in network.table.groups
    }  # fmt: skip
    assert touched == expected


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@every_network
def test_weights_and_output_are_those_that_torch_pruning_leaves(spec: NetworkSpec, seed: int) -> None:
    network = network_of(spec, seed=seed, dtype=torch.float32)
    kept = some_kept(spec, seed, remove_blocks=False)
    reference, _ = pruned(reference_of(network), network, kept)
    slender = slim(network, kept)
    ours, theirs = slender.state_dict(), reference.state_dict()
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    picture = picture_for(network, batch=2)
    output = run(slender, picture)
    assert difference(output, run(reference, picture)) <= 1e-5
    assert difference(output, run(network, picture)) > 1e-3


UNET = "model.model.1.model.3.model"


@pytest.mark.parametrize(
    ("family", "group", "written", "read"),
    [
        ("resnet", "stem", {"model.1"}, {"model.4"}),
        (
            "resnet",
            "trunk",
            {"model.7", *(f"model.{index}.conv_block.5" for index in (10, 11, 12))},
            {"model.13", *(f"model.{index}.conv_block.1" for index in (10, 11, 12))},
        ),
        ("resnet", "block2.inner", {"model.11.conv_block.1"}, {"model.11.conv_block.5"}),
        ("resnet", "up1", {"model.13"}, {"model.16"}),
        ("resnet", "up2", {"model.16"}, {"model.20"}),
        ("unet", "down3", {f"{UNET}.1"}, {f"{UNET}.3.model.1", f"{UNET}.5"}),
        ("unet", "up4", {f"{UNET}.3.model.5"}, {f"{UNET}.5"}),
        ("cartoongan", "down1.first", {"conv02_1"}, {"conv02_2"}),
        ("cartoongan", "down1", {"conv02_2"}, {"conv03_1"}),
        (
            "cartoongan",
            "trunk",
            {"conv03_2", "conv04_2", "conv05_2", "conv06_2"},
            {"conv04_1", "conv05_1", "conv06_1", "deconv01_1"},
        ),
        ("cartoongan", "up2.first", {"deconv02_1"}, {"deconv02_2"}),
        ("cartoongan", "up2", {"deconv02_2"}, {"deconv03_1"}),
        ("patchgan", "layer2", {"model.2"}, {"model.5"}),
    ],
)
def test_groups_by_name(family: str, group: str, written: set[str], read: set[str]) -> None:
    spec = next(spec for spec in TRACEABLE if spec.family == family)  # the ResNet: reflecting, no dropout layer
    network = network_of(spec)
    kept = {name: tuple(range(width)) for name, width in spec.widths}
    _, touched = pruned(reference_of(network), network, {**kept, group: (1, 2)})
    assert touched[group] == (written, read)
