"""A plan survives its JSON file exactly, and one that is damaged or made for another network is refused."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mggc_edge.errors import PlanError
from mggc_edge.models.families import layer_table
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.plan import PruningPlan, read_plan
from mggc_edge.pruning.random import random_plan

SPEC = resnet_spec(blocks=1, ngf=2)


def small_plan(**change: Any) -> PruningPlan:
    plan = PruningPlan(
        spec=SPEC,
        kept={"stem": (0,), "down1": (1, 3), "trunk": (0, 7), "block1.inner": (), "up1": (0, 1, 2), "up2": (1,)},
        scores={"stem": (0.1, -3.5e-300)},
        criterion="random",
        seed=3,
        budget=0.41,
        budget_met=0.40625000000000006,
        convention="paper",
        image_size=(64, 32),
        source_sha256="ab" * 32,
    )
    return replace(plan, **change)


def through_a_file(plan: PruningPlan, path: Path) -> PruningPlan:
    path.write_text(json.dumps(plan.to_json()), encoding="utf-8")
    return read_plan(path)


# --- round trips ---


def test_a_plan_comes_back_from_its_file_exactly(tmp_path: Path) -> None:
    plan = small_plan()
    back = through_a_file(plan, tmp_path / "plan.json")
    assert back == plan
    assert back.budget_met == 0.40625000000000006
    assert back.to_json() == plan.to_json()
    assert list(back.kept) == list(plan.kept)


def test_the_json_of_a_plan_is_this() -> None:
    assert small_plan().to_json() == {
        "schema": "mggc-edge/plan/1",
        "criterion": "random",
        "seed": 3,
        "budget": 0.41,
        "budget_met": 0.40625000000000006,
        "convention": "paper",
        "image_size": [64, 32],
        "source_sha256": "ab" * 32,
        "align": 1,
        "spec": SPEC.to_json(),
        "kept": {
            "stem": [0], "down1": [1, 3], "trunk": [0, 7], "block1.inner": [], "up1": [0, 1, 2], "up2": [1],
        },
        "scores": {"stem": [0.1, -3.5e-300]},
    }  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [resnet_spec(blocks=2, ngf=8), unet_spec(halvings=5, ngf=4), patchgan_spec(ndf=16)],
    ids=lambda spec: spec.family,
)
def test_a_random_plan_comes_back_from_its_file_exactly(spec: NetworkSpec, tmp_path: Path) -> None:
    plan = random_plan(layer_table(spec, (64, 64)), 0.5, seed=9, source_sha256=None)
    back = through_a_file(plan, tmp_path / "plan.json")
    assert back == plan
    assert back.scores == plan.scores


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    st.floats(0, 1, exclude_min=True),
    st.floats(0.40625 - 9e-7, 0.40625 + 9e-7),
    st.integers(0, 2**128),
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=100),
)
def test_numbers_and_text_in_a_plan_come_back_exactly(
    scores: list[float], budget: float, met: float, seed: int, criterion: str
) -> None:
    plan = small_plan(
        scores={"stem": tuple(scores)}, budget=budget, budget_met=met, seed=seed, criterion=criterion
    )  # fmt: skip
    assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


# --- plans that make no sense ---

NO_SIZE = "the picture size of a plan is a height and a width in pixels"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0.0}, "a budget is a fraction above 0 and up to 1, not 0"),
        ({"budget": -0.5}, "a budget is a fraction above 0 and up to 1, not -0.5"),
        ({"budget": 1.001}, "a budget is a fraction above 0 and up to 1, not 1.001"),
        ({"budget": float("nan")}, "a budget is a fraction above 0 and up to 1, not nan"),
        ({"convention": "flops"}, "the MACs convention must be 'true' or 'paper', not 'flops'"),
        ({"scores": {"stem": (1.0,)}}, "group 'stem' has 2 channels, but 1 scores"),
        ({"scores": {"trunk": (1.0,) * 9}}, "group 'trunk' has 8 channels, but 9 scores"),
        (
            {"scores": {"input": (1.0,) * 3}},
            "there are scores for a channel group that the network does not have: 'input'",
        ),
        ({"budget_met": 0.5}, "the plan says it keeps 0.5 of the MACs, but its channels keep 0.40625"),
        ({"budget_met": 0.406252}, "the plan says it keeps 0.406252 of the MACs, but its channels keep 0.40625"),
        ({"convention": "true"}, "the plan says it keeps 0.40625 of the MACs, but its channels keep 0.424693"),
        ({"image_size": (64, 0)}, f"{NO_SIZE}, not (64, 0)"),
        ({"image_size": (64, True)}, f"{NO_SIZE}, not (64, True)"),
        ({"image_size": (64, 64, 3)}, f"{NO_SIZE}, not (64, 64, 3)"),
        ({"image_size": (64, 33)}, "the picture size of the plan does not fit: a ResNet generator cannot run at 64x33"),
        ({"source_sha256": "ab"}, "the hash of the weights that a plan was made from has 64 hexadecimal digits"),
        ({"source_sha256": "g" * 64}, "the hash of the weights that a plan was made from has 64 hexadecimal digits"),
        ({"source_sha256": 7}, "the hash of the weights that a plan was made from has 64 hexadecimal digits"),
        ({"criterion": "x" * 101}, "the criterion of a plan is a text of 1 to 100 characters"),
        ({"criterion": ""}, "the criterion of a plan is a text of 1 to 100 characters"),
        ({"criterion": None}, "the criterion of a plan is a text of 1 to 100 characters"),
        ({"criterion": "\x1b[31m"}, "the criterion of a plan must be printable, not '\\x1b[31m'"),
    ],
)
def test_a_plan_that_makes_no_sense_cannot_be_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        small_plan(**change)
    assert error.value.message == message


WITHOUT_A_FIELD = "this pruning plan is damaged: a field is missing or of the wrong type ("


@pytest.mark.parametrize("field", [key for key in small_plan().to_json() if key not in ("schema", "align")])
def test_a_plan_without_a_field_is_refused(field: str) -> None:
    document = small_plan().to_json()
    del document[field]
    with pytest.raises(PlanError) as error:
        PruningPlan.from_json(document)
    assert error.value.message == f"{WITHOUT_A_FIELD}'{field}')"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "mggc-edge/plan/2"}, "this is no pruning plan: its schema is not 'mggc-edge/plan/1'"),
        ({"schema": None}, "this is no pruning plan: its schema is not 'mggc-edge/plan/1'"),
        ({"image_size": [64]}, f"{NO_SIZE}, not (64,)"),
        ({"image_size": 64}, f"{WITHOUT_A_FIELD}'int' object is not iterable)"),
        ({"image_size": ["a", "b"]}, f"{NO_SIZE}, not ('a', 'b')"),
        ({"image_size": [64.0, 32.0]}, f"{NO_SIZE}, not (64.0, 32.0)"),
        ({"image_size": [float("inf"), 64]}, f"{NO_SIZE}, not (inf, 64)"),
        ({"kept": {"stem": 3}}, f"{WITHOUT_A_FIELD}'int' object is not iterable)"),
        ({"kept": {"stem": [0.5]}}, f"{WITHOUT_A_FIELD}0.5 is no channel number)"),
        ({"kept": {"stem": [True]}}, f"{WITHOUT_A_FIELD}True is no channel number)"),
        ({"kept": {"stem": ["0"]}}, f"{WITHOUT_A_FIELD}'0' is no channel number)"),
        ({"kept": [1, 2]}, f"{WITHOUT_A_FIELD}'list' object has no attribute 'items')"),
        ({"scores": None}, f"{WITHOUT_A_FIELD}'NoneType' object has no attribute 'items')"),
        ({"scores": {"stem": ["high", "low"]}}, f"{WITHOUT_A_FIELD}could not convert string to float: 'high')"),
        ({"scores": {"stem": [1.0]}}, "group 'stem' has 2 channels, but 1 scores"),
        ({"scores": {"other": [1.0]}}, "there are scores for a channel group that the network does not have: 'other'"),
        ({"budget": "much"}, f"{WITHOUT_A_FIELD}could not convert string to float: 'much')"),
        ({"budget": 2}, "a budget is a fraction above 0 and up to 1, not 2"),
        ({"seed": None}, None),
        ({"convention": ["true"]}, "the MACs convention must be 'true' or 'paper', not ['true']"),
        (
            {"spec": {}},
            "this pruning plan is damaged: this is no network description: its schema is not 'mggc-edge/spec/1'",
        ),
        (
            {"spec": {**SPEC.to_json(), "norm": "layer"}},
            "this pruning plan is damaged: norm must be one of instance, instance_affine, batch, none, not 'layer'",
        ),
    ],
)
def test_a_damaged_plan_is_refused(change: dict[str, Any], message: str | None) -> None:
    with pytest.raises(PlanError) as error:
        PruningPlan.from_json({**small_plan().to_json(), **change})
    if message is None:  # Python's own words, which change with its version
        assert error.value.message.startswith(WITHOUT_A_FIELD)
    else:
        assert error.value.message == message


@pytest.mark.parametrize("change", [{"seed": float("inf")}, {"budget": 10**400}])
def test_a_plan_with_numbers_without_bounds_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as error:
        PruningPlan.from_json(json.loads(json.dumps({**small_plan().to_json(), **change})))
    assert error.value.message.startswith(WITHOUT_A_FIELD)


@pytest.mark.parametrize(
    "kept",
    [
        {"stem": [7]},
        {"stem": [-1]},
        {"stem": [1, 0]},
        {"stem": [1, 1]},
        {"stem": []},
        {"other": [0]},
    ],
)
def test_a_plan_whose_channels_do_not_fit_its_network_is_refused(kept: dict[str, list[int]]) -> None:
    document = small_plan().to_json()
    with pytest.raises(PlanError):
        PruningPlan.from_json({**document, "kept": {**document["kept"], **kept}})


def test_dropout_which_some_checkpoints_do_not_tell_makes_no_other_network() -> None:
    plan = small_plan()
    plan.check_fits(dataclasses.replace(plan.spec, dropout=not plan.spec.dropout))
    with pytest.raises(PlanError, match="made for another network"):
        plan.check_fits(dataclasses.replace(plan.spec, norm="instance_affine"))


@pytest.mark.parametrize(
    "change", [{"budget_met": float("nan")}, {"budget_met": 0}, {"scores": {"stem": [float("nan"), 1.0]}}]
)
def test_a_plan_with_what_is_no_number_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        PruningPlan.from_json({**small_plan().to_json(), **change})


@pytest.mark.parametrize("document", [None, [], "plan", 3, {}])
def test_what_is_no_plan_is_refused(document: object) -> None:
    with pytest.raises(PlanError) as error:
        PruningPlan.from_json(document)
    assert error.value.message == "this is no pruning plan: its schema is not 'mggc-edge/plan/1'"


# --- files ---


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as error:
        read_plan(tmp_path / "plan.json")
    assert error.value.message == f"there is no plan '{tmp_path / 'plan.json'}'"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_a_file_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError) as error:
        read_plan(path)
    assert error.value.message.startswith(f"'{path}' is no pruning plan: ")


def test_a_folder_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as error:
        read_plan(tmp_path)
    assert error.value.message.startswith(f"'{tmp_path}' is no pruning plan: ")


def test_a_file_that_is_far_too_large_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(64 * 2**20 + 1)  # a hole: it takes no space
    with pytest.raises(PlanError) as error:
        read_plan(path)
    assert error.value.message == f"'{path}' is too large for a pruning plan"


# --- whom a plan fits ---


def test_a_plan_fits_the_network_that_it_was_made_for() -> None:
    small_plan().check_fits(resnet_spec(blocks=1, ngf=2))


@pytest.mark.parametrize(
    ("spec", "described"),
    [
        (resnet_spec(blocks=1, ngf=3), "resnet with 3/6/12/12/..."),
        (resnet_spec(blocks=2, ngf=2), "resnet with 2/4/8/8/..."),
        (resnet_spec(blocks=1, ngf=2, norm="batch"), "resnet with 2/4/8/8/..."),
        (patchgan_spec(ndf=2), "patchgan with 2/4/8/16"),
    ],
)
def test_a_plan_does_not_fit_another_network(spec: NetworkSpec, described: str) -> None:
    with pytest.raises(PlanError) as error:
        small_plan().check_fits(spec)
    assert error.value.message == (
        f"the plan was made for another network (resnet with widths 2/4/8/8/..., not {described})"
    )
    assert error.value.hint == "apply it to the checkpoint that it was made from"
