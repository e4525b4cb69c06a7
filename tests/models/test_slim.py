"""A slim network computes what the network with closed gates computes, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mggc_edge.errors import PlanError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.convert import fold_batch_norm
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import Layer, LayerTable
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec, NormKind, PaddingMode
from mggc_edge.models.unet import unet_spec
from tests.models.model_helpers import (
    NORMS,
    PADDINGS,
    Kept,
    all_kept,
    difference,
    masks_of,
    network_of,
    picture_for,
    run,
    size_for,
    small_networks,
    some_kept,
    spec_id,
)

every_network = pytest.mark.parametrize("spec", small_networks(), ids=spec_id)


# --- examples ---


@st.composite
def resnets(draw: st.DrawFn) -> NetworkSpec:
    return resnet_spec(
        blocks=draw(st.integers(1, 4)),
        ngf=draw(st.integers(1, 5)),
        in_channels=draw(st.sampled_from((3, 1, 4))),
        out_channels=draw(st.sampled_from((3, 1))),
        norm=draw(st.sampled_from(NORMS)),
        padding=draw(st.sampled_from(PADDINGS)),
        dropout=draw(st.booleans()),
        separable=draw(st.booleans()),
    )


@st.composite
def unets(draw: st.DrawFn) -> NetworkSpec:
    return unet_spec(
        halvings=draw(st.integers(2, 6)),
        ngf=draw(st.integers(1, 4)),
        in_channels=draw(st.sampled_from((3, 1, 4))),
        norm=draw(st.sampled_from(NORMS)),
        dropout=draw(st.booleans()),
    )


@st.composite
def cartoongans(draw: st.DrawFn) -> NetworkSpec:
    return cartoongan_spec(
        blocks=draw(st.integers(1, 3)), ngf=draw(st.integers(1, 4)), in_channels=draw(st.sampled_from((3, 1, 4)))
    )


@st.composite
def patchgans(draw: st.DrawFn) -> NetworkSpec:
    return patchgan_spec(
        ndf=draw(st.integers(1, 6)),
        layers=draw(st.integers(1, 3)),
        in_channels=draw(st.sampled_from((3, 6))),
        norm=draw(st.sampled_from(NORMS)),
    )


@st.composite
def plans(draw: st.DrawFn, spec: NetworkSpec) -> Kept:
    kept: Kept = {}
    for group, width in spec.widths:
        lowest = 0 if group.endswith(".inner") or width == 0 else 1
        bits = draw(st.integers(lowest, 2**width - 1))
        kept[group] = tuple(index for index in range(width) if bits >> index & 1)
    return kept


@st.composite
def cases(draw: st.DrawFn, specs: st.SearchStrategy[NetworkSpec]) -> tuple[NetworkSpec, Kept, int]:
    spec = draw(specs)
    return spec, draw(plans(spec)), draw(st.integers(0, 2**32))


def the_two_ways_differ_by(network: Network, kept: Kept, *, batch: int = 1) -> float:
    """Largest difference between the network with closed gates and the slim one."""
    picture = picture_for(network, batch=batch)
    dtype = next(network.parameters()).dtype
    masked = run(network, picture, masks_of(network.table, kept, dtype))
    return difference(masked, run(slim(network, kept), picture))


def check(case: tuple[NetworkSpec, Kept, int]) -> None:
    spec, kept, seed = case
    network = network_of(spec, seed=seed, size=(32, 32) if spec.family in ("resnet", "cartoongan") else None)
    picture = picture_for(network)
    exact = run(network, picture, masks_of(network.table, kept))
    assert difference(exact, run(slim(network, kept), picture)) <= 1e-12
    network, picture = network.float(), picture.float()
    masked = run(network, picture, masks_of(network.table, kept, torch.float32))
    sliced = run(slim(network, kept), picture)
    assert difference(masked, sliced) <= 1e-5


by_default = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
for_long = settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


# --- masked equals sliced ---


@by_default
@given(cases(resnets()))
def test_a_slim_resnet_equals_the_masked_one(case: tuple[NetworkSpec, Kept, int]) -> None:
    check(case)


@by_default
@given(cases(unets()))
def test_a_slim_unet_equals_the_masked_one(case: tuple[NetworkSpec, Kept, int]) -> None:
    check(case)


@by_default
@given(cases(cartoongans()))
def test_a_slim_cartoongan_equals_the_masked_one(case: tuple[NetworkSpec, Kept, int]) -> None:
    check(case)


@by_default
@given(cases(patchgans()))
def test_a_slim_patchgan_equals_the_masked_one(case: tuple[NetworkSpec, Kept, int]) -> None:
    check(case)


@pytest.mark.slow
@for_long
@given(cases(st.one_of(resnets(), unets(), cartoongans(), patchgans())))
def test_a_slim_network_equals_the_masked_one_in_a_thousand_cases(case: tuple[NetworkSpec, Kept, int]) -> None:
    check(case)


@pytest.mark.parametrize("seed", range(2))
@every_network
def test_every_kind_of_network_is_slimmed_exactly(spec: NetworkSpec, seed: int) -> None:
    network = network_of(spec, seed=seed)
    kept = some_kept(spec, seed + 10)
    assert sum(map(len, kept.values())) < sum(width for _, width in spec.widths)
    assert the_two_ways_differ_by(network, kept, batch=2) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", ["resnet", "unet", "patchgan"])
def test_networks_at_their_usual_size_are_slimmed_exactly(family: str, norm: NormKind) -> None:
    spec = {
        "resnet": resnet_spec(ngf=16, norm=norm),
        "unet": unet_spec(ngf=16, norm=norm),
        "patchgan": patchgan_spec(ndf=32, norm=norm),
    }[family]
    network = network_of(spec, size=(256, 256))
    for seed in range(3):
        assert the_two_ways_differ_by(network, some_kept(spec, seed)) <= 1e-12
    assert the_two_ways_differ_by(network.float(), some_kept(spec, 3)) <= 1e-5


def test_a_unet_256_is_slimmed_exactly_at_256x256() -> None:
    network = network_of(unet_spec(ngf=4), size=(256, 256))
    assert the_two_ways_differ_by(network, some_kept(network.spec, 0)) <= 1e-12


@every_network
def test_closing_channels_changes_the_output(spec: NetworkSpec) -> None:
    network = network_of(spec)
    picture = picture_for(network)
    assert difference(run(slim(network, some_kept(spec, 0)), picture), run(network, picture)) > 1e-2


@pytest.mark.parametrize("spec", [spec for spec in small_networks() if spec.norm == "batch"], ids=spec_id)
def test_a_network_whose_batch_norm_is_folded_away_is_slimmed_exactly(spec: NetworkSpec) -> None:
    folded = fold_batch_norm(network_of(spec))
    for seed in range(3):
        assert the_two_ways_differ_by(folded, some_kept(spec, seed)) <= 1e-12


@pytest.mark.parametrize("spec", [spec for spec in small_networks() if spec.norm == "batch"], ids=spec_id)
def test_slimming_and_folding_batch_norm_may_come_in_either_order(spec: NetworkSpec) -> None:
    network = network_of(spec)
    kept = some_kept(spec, 5)
    one, other = fold_batch_norm(slim(network, kept)), slim(fold_batch_norm(network), kept)
    assert one.spec == other.spec
    state = other.state_dict()
    assert all(difference(value, state[key]) <= 1e-12 for key, value in one.state_dict().items())


# --- removed residual blocks ---


def without_blocks(spec: NetworkSpec, *blocks: int) -> Kept:
    return {**all_kept(spec), **{f"block{block}.inner": () for block in blocks}}


def test_a_removed_block_with_plain_instance_norm_leaves_nothing() -> None:
    network = network_of(resnet_spec(blocks=3, ngf=4))
    slender = slim(network, without_blocks(network.spec, 2))
    assert {key.split(".")[1] for key in slender.state_dict()} == {"1", "4", "7", "10", "12", "13", "16", "20"}
    assert the_two_ways_differ_by(network, without_blocks(network.spec, 2)) <= 1e-12


def test_a_removed_block_with_affine_instance_norm_leaves_the_beta_of_its_last_norm() -> None:
    network = network_of(resnet_spec(blocks=3, ngf=4, norm="instance_affine"))
    kept = {**without_blocks(network.spec, 2), "trunk": (0, 3, 15)}
    state = slim(network, kept).state_dict()
    beta = network.state_dict()["model.11.conv_block.6.bias"]
    assert torch.equal(state["model.11.constant"], beta[[0, 3, 15]])
    assert not any(key.startswith("model.11.conv_block") for key in state)


@pytest.mark.parametrize("separable", [False, True])
def test_a_removed_block_with_batch_norm_leaves_its_normed_mean(separable: bool) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="batch", separable=separable))
    state = network.state_dict()
    gamma, beta, mean, variance = (
        state[f"model.10.conv_block.6.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    left = slim(network, without_blocks(network.spec, 1)).state_dict()["model.10.constant"]
    expected = (0 - mean) * gamma / torch.sqrt(variance + 1e-5) + beta
    assert torch.allclose(left, expected, rtol=0, atol=1e-14)


def test_a_removed_block_without_norm_leaves_the_bias_of_its_last_convolution() -> None:
    folded = fold_batch_norm(network_of(resnet_spec(blocks=1, ngf=4, norm="batch")))
    left = slim(folded, without_blocks(folded.spec, 1)).state_dict()["model.10.constant"]
    assert torch.equal(left, folded.state_dict()["model.10.conv_block.5.bias"])


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_all_blocks_can_be_removed(norm: NormKind, separable: bool) -> None:
    network = network_of(resnet_spec(blocks=3, ngf=4, norm=norm, separable=separable))
    assert the_two_ways_differ_by(network, without_blocks(network.spec, 1, 2, 3)) <= 1e-12


@pytest.mark.parametrize("norm", ["instance_affine", "batch"])
def test_forgetting_the_constant_of_a_removed_block_would_be_wrong(norm: NormKind) -> None:
    network = network_of(resnet_spec(blocks=2, ngf=4, norm=norm))
    kept = without_blocks(network.spec, 1)
    slender = slim(network, kept)
    slender.get_parameter("model.10.constant").data.zero_()
    picture = picture_for(network)
    assert difference(run(slender, picture), run(network, picture, masks_of(network.table, kept))) > 1e-3


# --- slimming twice, the input network, nothing to remove ---


def composed(first: Kept, second: Kept) -> Kept:
    return {group: tuple(first[group][index] for index in indices) for group, indices in second.items()}


def assert_same_network(a: Network, b: Network) -> None:
    assert a.spec == b.spec
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@by_default
@given(st.data(), st.one_of(resnets(), unets(), cartoongans(), patchgans()))
def test_slimming_twice_is_slimming_once_with_the_composed_channels(data: st.DataObject, spec: NetworkSpec) -> None:
    network = network_of(spec)
    first = data.draw(plans(spec))
    once = slim(network, first)
    second = data.draw(plans(once.spec))
    assert_same_network(slim(once, second), slim(network, composed(first, second)))


@pytest.mark.parametrize("spec", [spec for spec in small_networks() if spec.family == "resnet"], ids=spec_id)
def test_a_network_with_removed_blocks_is_slimmed_exactly_again(spec: NetworkSpec) -> None:
    network = slim(network_of(spec), {**some_kept(spec, 0, remove_blocks=False), "block2.inner": ()})
    assert network.spec.width("block2.inner") == 0
    kept = {**some_kept(network.spec, 1), "block1.inner": ()}
    assert kept["block2.inner"] == ()
    assert the_two_ways_differ_by(network, kept) <= 1e-12


@every_network
def test_the_input_network_is_left_bit_for_bit_as_it_was(spec: NetworkSpec) -> None:
    network = network_of(spec).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    slender = slim(network, all_kept(spec))
    with torch.no_grad():
        for tensor in slender.state_dict().values():
            tensor.zero_()
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert network.spec == spec
    assert network.training


@every_network
def test_keeping_every_channel_gives_the_same_network(spec: NetworkSpec) -> None:
    network = network_of(spec)
    assert_same_network(slim(network, all_kept(spec)), network)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mode_element_type_and_picture_size_stay(dtype: torch.dtype, training: bool) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4), dtype=dtype, size=(16, 24)).train(training)
    slender = slim(network, some_kept(network.spec, 0))
    assert {parameter.dtype for parameter in slender.parameters()} == {dtype}
    assert all(parameter.requires_grad for parameter in slender.parameters())
    assert slender.training is training
    assert slender.table.image_size == (16, 24)


# --- gates in the wrong place ---

Gate = Literal["norm", "conv"]


def regated(network: Network, gate: Mapping[str, Gate | None]) -> Network:
    """The same weights with other gates: `gate` says, by the kind of row ("depthwise_conv", "normed"), where."""

    def moved(layer: Layer) -> Layer:
        if layer.gate_after is None or layer.norm is None:
            return layer
        kind = "depthwise_conv" if layer.op == "depthwise_conv" else "normed"
        return replace(layer, gate_after=gate[kind]) if kind in gate else layer

    table = network.table
    mutant = Network(network.spec, LayerTable(table.spec, table.image_size, tuple(map(moved, table.layers))))
    mutant.load_state_dict(network.state_dict())
    return mutant.to(torch.float64).eval()


def with_mutated_gates_differs_by(network: Network, kept: Kept, gate: Mapping[str, Gate | None]) -> float:
    mutant = regated(network, gate)
    picture = picture_for(network)
    assert torch.equal(run(mutant, picture), run(network, picture))  # open gates may sit anywhere
    return difference(run(mutant, picture, masks_of(network.table, kept)), run(slim(network, kept), picture))


ALL_FAMILIES = (
    resnet_spec(blocks=2, ngf=4),
    resnet_spec(blocks=2, ngf=4, separable=True),
    unet_spec(halvings=6, ngf=4),
    patchgan_spec(ndf=4),
)


def normed(spec: NetworkSpec, norm: NormKind) -> NetworkSpec:
    return replace(spec, norm=norm, bias=norm != "batch")


@pytest.mark.parametrize("norm", ["instance_affine", "batch"])
@pytest.mark.parametrize("spec", ALL_FAMILIES, ids=spec_id)
def test_a_gate_before_a_norm_with_parameters_is_wrong(spec: NetworkSpec, norm: NormKind) -> None:
    network = network_of(normed(spec, norm))
    kept = some_kept(spec, 3, remove_blocks=False)
    assert with_mutated_gates_differs_by(network, kept, {"normed": "conv"}) > 1e-3
    assert with_mutated_gates_differs_by(network, kept, {}) <= 1e-12


@pytest.mark.parametrize("spec", ALL_FAMILIES, ids=spec_id)
def test_a_gate_before_a_plain_instance_norm_is_exact(spec: NetworkSpec) -> None:
    network = network_of(normed(spec, "instance"))
    kept = some_kept(spec, 3)
    gates: dict[str, Gate | None] = {"normed": "conv", "depthwise_conv": "conv"}
    assert with_mutated_gates_differs_by(network, kept, gates) <= 1e-12


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_separable_block_with_batch_norm_is_wrong_without_a_gate_after_its_depthwise_norm(
    padding: PaddingMode,
) -> None:
    network = network_of(resnet_spec(blocks=2, ngf=4, norm="batch", padding=padding, separable=True))
    kept = some_kept(network.spec, 3, remove_blocks=False)
    assert with_mutated_gates_differs_by(network, kept, {"depthwise_conv": None}) > 1e-3


@pytest.mark.parametrize("norm", ["instance", "instance_affine"])
def test_with_instance_norm_a_separable_block_needs_no_gate_after_its_depthwise_norm(norm: NormKind) -> None:
    # A closed channel comes out as the constant beta, and the instance norm after the pointwise convolution takes away
    # every constant. The gate is there for batch norm.
    network = network_of(resnet_spec(blocks=2, ngf=4, norm=norm, separable=True))
    kept = some_kept(network.spec, 3)
    assert with_mutated_gates_differs_by(network, kept, {"depthwise_conv": None}) <= 1e-12


@pytest.mark.parametrize("spec", small_networks(), ids=spec_id)
def test_gates_sit_after_the_norm_and_never_on_the_output(spec: NetworkSpec) -> None:
    for layer in layer_table(spec, size_for(spec)).layers:
        if layer.output == "output":
            assert layer.gate_after is None
        else:
            assert layer.gate_after == ("conv" if layer.norm is None else "norm")


def test_gates_between_0_and_1_scale_channels_and_let_gradients_through() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4))
    gates = {group.name: torch.full((group.size,), 0.5, dtype=torch.float64) for group in network.table.groups}
    for gate in gates.values():
        gate.requires_grad_()
    output: Tensor = network(picture_for(network), gates)
    torch.autograd.backward(output.square().sum())
    for gate in gates.values():
        assert gate.grad is not None
        assert float(gate.grad.abs().max()) > 0


# --- folding ---


@pytest.mark.parametrize("spec", [spec for spec in small_networks() if spec.norm == "batch"], ids=spec_id)
def test_a_network_with_folded_batch_norm_equals_the_original(spec: NetworkSpec) -> None:
    network = network_of(spec)
    folded = fold_batch_norm(network)
    picture = picture_for(network, batch=2)
    assert folded.spec == replace(spec, norm="none", bias=True)
    assert not any(key.endswith("running_mean") for key in folded.state_dict())
    assert difference(run(folded, picture), run(network, picture)) <= 1e-12


def test_folding_keeps_the_constant_of_a_removed_block() -> None:
    network = network_of(resnet_spec(blocks=2, ngf=4, norm="batch"))
    slender = slim(network, without_blocks(network.spec, 1))
    picture = picture_for(network)
    assert difference(run(fold_batch_norm(slender), picture), run(slender, picture)) <= 1e-12


def test_folding_survives_a_tiny_running_variance() -> None:
    network = network_of(patchgan_spec(ndf=4, norm="batch"), dtype=torch.float32)
    network.get_buffer("model.3.running_var").fill_(1e-12)
    picture = picture_for(network)
    expected = run(network, picture)
    assert difference(run(fold_batch_norm(network), picture), expected) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("norm", ["instance", "instance_affine"])
def test_folding_gives_a_network_without_batch_norm_back(norm: NormKind) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm=norm))
    assert fold_batch_norm(network) is network


# --- plans that do not fit ---

SPEC = resnet_spec(blocks=1, ngf=4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stem": ()}, "group 'stem' must keep at least 1 channel"),
        ({"trunk": ()}, "group 'trunk' must keep at least 1 channel"),
        ({"stem": (4,)}, "group 'stem' must keep rising channel numbers between 0 and 3"),
        ({"stem": (-1, 0)}, "group 'stem' must keep rising channel numbers between 0 and 3"),
        ({"stem": (1, 0)}, "group 'stem' must keep rising channel numbers between 0 and 3"),
        ({"stem": (1, 1)}, "group 'stem' must keep rising channel numbers between 0 and 3"),
        ({"stem": (0, 9, 2)}, "group 'stem' must keep rising channel numbers between 0 and 3"),
        ({"block1.inner": (16,)}, "group 'block1.inner' must keep rising channel numbers between 0 and 15"),
        ({"block2.inner": (0,)}, "the plan and the network do not have the same channel groups: block2.inner"),
        ({"up2": None}, "the plan and the network do not have the same channel groups: up2"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(change: dict[str, tuple[int, ...] | None], text: str) -> None:
    kept = {group: indices for group, indices in {**all_kept(SPEC), **change}.items() if indices is not None}
    with pytest.raises(PlanError) as error:
        slim(Network(SPEC), kept)
    assert error.value.message == text


def test_a_removed_block_cannot_get_channels_back() -> None:
    gone = slim_spec(SPEC, without_blocks(SPEC, 1))
    with pytest.raises(PlanError, match="block1"):
        slim_spec(gone, {**all_kept(gone), "block1.inner": (0,)})
