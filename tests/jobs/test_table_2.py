"""The switches of the paper's Table 2 and the numbers of its equations: each is one setting, and each takes part."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mggc_edge.jobs.choose import Choice, Work, make_game
from mggc_edge.jobs.encoders import check_encoder
from mggc_edge.jobs.methods import METHODS, Task, _evenness
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import make_finetune, slim_generator
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.mggc.agents import FreeAgent, GruAgent
from mggc_edge.settings import SETTINGS, Settings
from mggc_edge.training.bank import GivenPictures, Selection
from mggc_edge.training.finetune import Finetune
from mggc_edge.training.material import Material
from tests.jobs.conftest import MakeWork, making
from tests.models.model_helpers import network_of
from tests.training.training_helpers import RGB, assert_equal, copied, pictures, run_steps, trained

COUNT = 6
X, TRUTH = pictures(COUNT, seed=1), pictures(COUNT, seed=2)
GENERATOR = trained(resnet_spec(blocks=2, ngf=4), seed=1)
PAIR_JUDGE = trained(patchgan_spec(in_channels=6, ndf=4, layers=1), seed=2)
TINY = {"encoder__steps": 3, "encoder__batch_size": 4, "mggc__k": 3, "finetune__recalibration_batches": 1}
# The rows of Table 2, each with all that the rows before it have.
BASELINE: dict[str, Any] = {
    "mggc__prune_discriminator": False,
    "mggc__agent": "free",
    "mggc__feedback": False,
    "mggc__k": 0,
    "distill__enabled": False,
}
ROWS: dict[str, dict[str, Any]] = {
    "discriminator pruning": {"mggc__prune_discriminator": True},
    "agents": {"mggc__agent": "gru"},
    "feedback": {"mggc__feedback": True},
    "manifold": {"mggc__k": 3},
    "distillation": {"distill__enabled": True},
}


def row(name: str) -> dict[str, Any]:
    """The settings of a row of Table 2."""
    found = dict(BASELINE)
    for each, change in ROWS.items():
        found |= change
        if each == name:
            return found
    return dict(BASELINE)


@torch.no_grad()
def own_outputs() -> GivenPictures:
    levels = ((GENERATOR(X.batch(range(COUNT))) + 1) * 127.5).round().clamp(0, 255)
    return GivenPictures(levels.to(torch.uint8).numpy(), RGB)


OUTPUTS = own_outputs()


def material() -> Material:
    return Material("paired", X, TRUTH, X, TRUTH, X, TRUTH, X, None, None, "held out", "")


def request() -> CompressRequest:
    return CompressRequest("model.pth", "0.5", data="there", prune_epochs=2, finetune_epochs=1)


def play(work: Work, budget: float = 0.5) -> Choice:
    encoder = check_encoder(work.job.settings, request())
    return METHODS["mggc"].choose(work, Task(GENERATOR, PAIR_JUDGE, material(), OUTPUTS, encoder, request(), budget))


def finetune(work: Work, choice: Choice) -> Finetune:
    student = slim_generator(work.job.settings, GENERATOR, material(), choice, 0)
    originals = Originals(GENERATOR, PAIR_JUDGE, None, {})
    return make_finetune(work, originals, material(), choice, request(), student)


def stages(work: Work) -> set[str]:
    assert work.journal is not None
    return {json.loads(line)["stage"] for line in work.journal.path.read_text().splitlines()}


# --- the defaults ---


def test_the_defaults_are_the_whole_method_with_the_paper_s_numbers() -> None:
    given = Settings()
    for change in ROWS.values():
        for name, value in change.items():
            assert given[name.replace("__", ".")] == (5 if name == "mggc__k" else value)
    assert (given["mggc.lambda_1"], given["mggc.lambda_2"], given["mggc.k"]) == (3.0, 0.1, 5)
    assert (given["mggc.noise"], given["mggc.pairing"]) == ("gumbel_paper", "center")
    sources = {setting.name: setting.source for setting in SETTINGS}
    for name in (*BASELINE, "mggc__lambda_1", "mggc__lambda_2", "mggc__noise", "mggc__pairing"):
        assert sources[name.replace("__", ".")].startswith("paper")


# --- every row differs from the one before it ---


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Choice]:
    """What every row chooses, the baseline first."""
    with making(tmp_path_factory.mktemp("rows")) as make:
        return {name: play(make(**{**TINY, **row(name)})) for name in ("baseline", *ROWS)}


@pytest.mark.parametrize("name", list(ROWS)[:-1])
def test_a_row_of_table_2_chooses_otherwise_than_the_row_before_it(chosen: dict[str, Choice], name: str) -> None:
    before = list(chosen)[list(chosen).index(name) - 1]
    assert chosen[before].generator.scores != chosen[name].generator.scores


def test_the_last_row_chooses_the_same_channels_and_finetunes_otherwise(
    work: MakeWork, chosen: dict[str, Choice]
) -> None:
    assert chosen["manifold"] == chosen["distillation"]
    weights = []
    for name in ("manifold", "distillation"):
        stage = finetune(work(**{**TINY, **row(name)}), chosen[name])
        run_steps(stage, 0, 0, 2)
        weights.append(copied(stage.student.state_dict()))
    assert not all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Choice:
    # Near 1 the gates of the first steps are below the budget, where the two penalties differ.
    with making(tmp_path_factory.mktemp("usual")) as make:
        return play(make(**TINY), budget=0.97)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lambda_1", 30.0),
        ("lambda_2", 5.0),
        ("noise", "logistic"),
        ("noise", "gumbel_sibling"),
        ("temperature", 2.0),
        ("pairing", "neighbor"),
        ("regularizer", "one_sided"),
        ("offset", 1.0),
        ("loss", "lsgan"),
    ],
)
def test_every_number_and_choice_of_the_game_takes_part(
    work: MakeWork, usual: Choice, name: str, value: object
) -> None:
    changed = play(work(**TINY, **{f"mggc__{name}": value}), budget=0.97)
    assert usual.discriminator is not None
    assert changed.discriminator is not None
    assert (usual.generator.scores, usual.discriminator.scores) != (
        changed.generator.scores,
        changed.discriminator.scores,
    )


def test_final_widths_and_filters_are_chosen_after_the_game(work: MakeWork) -> None:
    even, uneven, largest = (
        play(work(**TINY, **more), budget=0.5).generator
        for more in ({"mggc__evenness": 1.0}, {}, {"mggc__evenness": 1.0, "mggc__filters": "largest"})
    )
    assert even.scores == uneven.scores == largest.scores
    assert even.kept != uneven.kept
    assert even.kept != largest.kept
    assert {name: len(kept) for name, kept in even.kept.items()} == {
        name: len(kept) for name, kept in largest.kept.items()
    }


def test_widths_are_even_in_u_nets_alone_where_nothing_else_is_asked_for() -> None:
    u_net, resnet = (network_of(spec) for spec in (unet_spec(halvings=5, ngf=4), resnet_spec(blocks=1, ngf=4)))
    assert [_evenness(-1.0, network) for network in (u_net, resnet)] == [1.0, 0.0]
    assert [_evenness(0.5, network) for network in (u_net, resnet)] == [0.5, 0.5]


# --- what each switch means ---


def game_of(work: Work) -> Any:
    encoder = check_encoder(work.job.settings, request())
    return make_game(work, GENERATOR, PAIR_JUDGE, material(), OUTPUTS, request(), 0.5, encoder)


def test_without_discriminator_pruning_it_has_no_agent_no_plan_and_finetuning_plays_against_all_of_it(
    work: MakeWork,
) -> None:
    tiny = {**TINY, "finetune__gan_weight": 1.0}
    pruned, whole = work(**tiny), work(**tiny, mggc__prune_discriminator=False)
    assert game_of(pruned).discriminator_agent is not None
    assert game_of(whole).discriminator_agent is None
    with_plan, without = play(pruned), play(whole)
    assert with_plan.discriminator is not None
    assert without.discriminator is None
    assert set(with_plan.discriminator.scores) == {"layer1", "layer2"}
    judge = finetune(whole, without).judge
    assert judge is not None
    assert judge.spec == PAIR_JUDGE.spec


def test_free_logits_are_parameters_without_an_agent(work: MakeWork) -> None:
    assert isinstance(game_of(work(**TINY)).generator_agent, GruAgent)
    free = game_of(work(**TINY, mggc__agent="free"))
    assert isinstance(free.generator_agent, FreeAgent)
    assert isinstance(free.discriminator_agent, FreeAgent)


@pytest.mark.parametrize("feedback", [True, False])
def test_with_feedback_an_agent_answers_to_the_other_one_and_without_it_does_not(
    work: MakeWork, feedback: bool
) -> None:
    game = game_of(work(**TINY, mggc__feedback=feedback))
    run_steps(game, 0, 0, 4)
    for agent in (game.generator_agent, game.discriminator_agent):
        silent, loud = (agent(torch.full((3, 256), value))[0] for value in (0.0, 1.0))
        assert any(not torch.equal(silent[name], loud[name]) for name in silent) is feedback


def shown_to_judge(game: Any, monkeypatch: pytest.MonkeyPatch, steps: int) -> list[Tensor]:
    """The real pictures that the discriminator sees: in every step the second thing that it judges."""
    seen: list[Tensor] = []
    judge = game._discriminator.forward

    def forward(picture: Tensor, *more: Any) -> Tensor:
        seen.append(picture.detach().clone())
        result: Tensor = judge(picture, *more)
        return result

    monkeypatch.setattr(game._discriminator, "forward", forward)
    run_steps(game, 0, 0, steps)
    return seen[1::2]


def test_without_the_manifold_every_input_is_compared_with_the_original_s_own_output_and_no_encoder_is_trained(
    work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, among = work(**{**TINY, "mggc__k": 0}), work(**TINY)
    pairs = [torch.cat([X.batch([n])[0], OUTPUTS.batch([n])[0]]) for n in range(COUNT)]
    game = game_of(alone)
    assert game._neighbors.shape == (COUNT, 0)
    seen = shown_to_judge(game, monkeypatch, 2 * COUNT)
    assert len(seen) == 2 * COUNT
    assert all(any(torch.equal(one[0], pair) for pair in pairs) for one in seen)
    assert alone.journal is not None
    assert not alone.journal.path.read_text()
    neighbors = shown_to_judge(game_of(among), monkeypatch, 2 * COUNT)
    assert not all(any(torch.equal(one[0], pair) for pair in pairs) for one in neighbors)
    assert stages(among) == {"encoder"}


def taps_of(network: Network, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note, for every pass of a network, how many of its values were looked at."""
    found: list[int] = []
    run = network._forward

    def counting(*arguments: Any) -> Tensor:
        found.append(len(arguments[3]))
        return run(*arguments)

    monkeypatch.setattr(network, "_forward", counting)
    return found


def test_without_distillation_the_original_is_not_run_in_any_step_and_its_features_are_never_computed(
    work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    off, on = work(**TINY, distill__enabled=False), work(**TINY)
    choice = play(off)
    without = finetune(off, choice)
    passes = taps_of(GENERATOR, monkeypatch)
    without.begin()  # the original's outputs for the held-out pictures, by which the best is chosen
    assert passes == [0]
    metrics = run_steps(without, 0, 0, 2)
    assert passes == [0]
    assert not any("distill" in name for step in metrics for name in step)
    assert {name for step in metrics for name in step if name.startswith("loss_")} == {
        "loss_g", "loss_gan", "loss_l1", "loss_d"
    }  # fmt: skip
    assert list(without._distiller.parameters()) == []
    stage = finetune(on, choice)
    stage.begin()
    metrics = run_steps(stage, 0, 0, 2)
    assert passes[1:] == [3, 3, 3]  # the trunk as it begins, and after each third of its two blocks
    assert {"loss_distill_content", "loss_distill_style"} < set(metrics[0])


def test_without_distillation_a_stage_goes_on_bit_for_bit(work: MakeWork) -> None:
    at = work(**TINY, distill__enabled=False)
    choice = play(at)
    whole, halved, fresh = (finetune(at, choice) for _ in range(3))
    run_steps(whole, 0, 0, 4)
    run_steps(halved, 0, 0, 2)
    fresh.load_state(copied(halved.state()))
    run_steps(fresh, 0, 2, 4)
    assert_equal(fresh.state(), whole.state())


@pytest.mark.parametrize(
    ("count", "k", "note"),
    [
        (1, 0, "note: 1 picture has no neighbors; it is pruned with mggc.k=0, not 3"),
        (2, 1, "note: 2 pictures have at most 1 neighbor each, not 3"),
        (3, 2, "note: 3 pictures have at most 2 neighbors each, not 3"),
    ],
)
def test_fewer_pictures_than_neighbors_are_noted(work: MakeWork, count: int, k: int, note: str) -> None:
    told: list[str] = []
    few, some = Selection(X, range(count)), Selection(OUTPUTS, range(count))
    at = replace(work(**TINY), tell=told.append)
    encoder = check_encoder(at.job.settings, request())
    game = make_game(at, GENERATOR, PAIR_JUDGE, replace(material(), source=few), some, request(), 0.5, encoder)
    assert (told[0], game.settings.k) == (note, k)
