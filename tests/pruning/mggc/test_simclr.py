"""SimCLR: the encoder learns to tell pictures apart through crops and colours, and does not collapse."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import SettingError
from mggc_edge.pictures import PictureFormat
from mggc_edge.pruning.mggc.augment import random_views
from mggc_edge.pruning.mggc.encoder import SmallEncoder, embed
from mggc_edge.pruning.mggc.simclr import SimclrSettings, SimclrTraining, nt_xent
from mggc_edge.training.bank import ProceduralPictures
from mggc_edge.training.precision import Precision
from tests.pruning.mggc.game_helpers import MemoryBank


@cache
def pictures(count: int = 48) -> MemoryBank:
    bank = ProceduralPictures(count, (40, 40), PictureFormat.for_channels(3), seed=0)
    return MemoryBank(bank.batch(range(count)))


def encoder(seed: int = 0, channels: int = 3) -> SmallEncoder:
    torch.manual_seed(seed)
    return SmallEncoder(channels)


def training(network: SmallEncoder, *, steps: int = 30, batch_size: int = 16, **changes: int) -> SimclrTraining:
    settings = SimclrSettings(batch_size=batch_size)
    return SimclrTraining(network, pictures(changes.pop("count", 48)), settings, seed=0, steps=steps)


def train(stage: SimclrTraining, first: int, last: int) -> list[dict[str, float]]:
    metrics = []
    for number in range(first, last):
        torch.manual_seed(number)
        metrics.append(dict(stage.step(number)))
    return metrics


def recall(network: SmallEncoder) -> float:
    """In what fraction of new views the picture itself is the most similar of all."""
    torch.manual_seed(10_000)
    bank = pictures()
    views = embed(network, MemoryBank(random_views(bank.pictures)))
    return float(((views @ embed(network, bank).T).argmax(dim=1) == torch.arange(len(bank))).float().mean())


def test_after_a_short_training_a_view_finds_its_own_picture() -> None:
    network = encoder()
    untrained = recall(network)
    metrics = train(training(network, steps=40, batch_size=24), 0, 40)
    chance = 1 / len(pictures())
    trained = recall(network)
    assert trained > 15 * chance
    assert trained > untrained + 0.1
    assert sum(m["loss"] for m in metrics[-10:]) < 0.9 * sum(m["loss"] for m in metrics[:10])
    assert sum(m["found"] for m in metrics[-10:]) > sum(m["found"] for m in metrics[:10])


def test_a_trained_encoder_spreads_pictures_over_many_directions() -> None:
    network = encoder()
    train(training(network), 0, 30)
    embeddings = embed(network, pictures())
    cosines = embeddings @ embeddings.T
    others = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    assert float(others.mean()) < 0.8
    assert float(others.std()) > 0.1


def test_a_stage_that_goes_on_equals_one_that_was_never_stopped() -> None:
    whole, halved = encoder(), encoder()
    uninterrupted = training(whole, steps=6)
    metrics = train(uninterrupted, 0, 6)
    first = training(halved, steps=6)
    train(first, 0, 3)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    fresh = training(encoder(seed=5), steps=6)
    fresh.load_state(saved)
    assert train(fresh, 3, 6) == metrics[3:]
    assert fresh.state().keys() == uninterrupted.state().keys()
    for name, tensor in uninterrupted.state().items():
        assert torch.equal(tensor, fresh.state()[name]), name


def test_the_stage_trains_the_encoder_that_it_was_given_and_draws_nothing_at_its_start() -> None:
    network = encoder()
    before = [parameter.clone() for parameter in network.parameters()]
    torch.manual_seed(3)
    stage = training(network)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    train(stage, 0, 1)
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_in_bfloat16_the_loss_is_about_the_same() -> None:
    losses = []
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        settings = SimclrSettings(batch_size=16)
        stage = SimclrTraining(encoder(), pictures(), settings, seed=0, steps=1, precision=precision)
        losses += [train(stage, 0, 1)[0]["loss"]]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# --- the loss ---


def by_hand(views: Tensor, numbers: list[int], temperature: float) -> float:
    unit = torch.nn.functional.normalize(views.double(), dim=1)
    count, total = len(numbers), 0.0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        similar = math.exp(float(unit[i] @ unit[partner]) / temperature)
        others = sum(
            math.exp(float(unit[i] @ unit[j]) / temperature)
            for j in range(2 * count)
            if numbers[j % count] != numbers[i % count]
        )
        total -= math.log(similar / (similar + others))
    return total / (2 * count)


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3], [5, 1, 5, 2]])
def test_the_loss_is_nt_xent_and_a_picture_that_comes_twice_is_not_compared_with_itself(numbers: list[int]) -> None:
    views = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    loss, _ = nt_xent(views, torch.tensor(numbers), 0.3)
    assert loss.item() == pytest.approx(by_hand(views, numbers, 0.3), rel=1e-5)


def test_equal_views_of_different_pictures_are_all_found() -> None:
    views = torch.eye(4).repeat(2, 1)
    loss, found = nt_xent(views, torch.arange(4), 0.1)
    assert found == 1
    assert loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-10)), rel=1e-3)


def test_one_picture_alone_has_nothing_to_learn_from() -> None:
    (metrics,) = train(training(encoder(), count=1), 0, 1)
    assert metrics["loss"] == 0


# --- settings ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "the encoder tells pictures of a batch apart: it needs two or more, not 1"),
        ({"learning_rate": 0.0}, "the encoder's learning rate must be a number above 0, not 0"),
        ({"temperature": math.nan}, "the encoder's temperature must be a number above 0, not nan"),
        ({"weight_decay": -1.0}, "the encoder's weight decay must be a number of at least 0, not -1"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        SimclrSettings(**changes)  # type: ignore[arg-type]
    assert str(caught.value) == message
