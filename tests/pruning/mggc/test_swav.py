"""SwAV: codes divide a batch equally, views predict each other's, and an encoder that learns so knows pictures."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import SettingError
from mggc_edge.pictures import PictureFormat
from mggc_edge.pruning.mggc.augment import random_views
from mggc_edge.pruning.mggc.encoder import SmallEncoder, embed
from mggc_edge.pruning.mggc.swav import SwavSettings, SwavTraining, sinkhorn, swapped_loss
from mggc_edge.training.bank import ProceduralPictures
from mggc_edge.training.precision import Precision
from tests.pruning.mggc.game_helpers import MemoryBank


@cache
def pictures(count: int = 48) -> MemoryBank:
    bank = ProceduralPictures(count, (40, 40), PictureFormat.for_channels(3), seed=0)
    return MemoryBank(bank.batch(range(count)))


def encoder(seed: int = 0) -> SmallEncoder:
    torch.manual_seed(seed)
    return SmallEncoder()


def training(network: SmallEncoder, *, steps: int = 30, count: int = 48, **changes: Any) -> SwavTraining:
    precision: Precision = changes.pop("precision", "fp32")
    settings = SwavSettings(**{"batch_size": 16, "prototypes": 32, "small_views": 2, **changes})
    return SwavTraining(network, pictures(count), settings, seed=0, steps=steps, precision=precision)


def train(stage: SwavTraining, first: int, last: int) -> list[dict[str, float]]:
    metrics = []
    for number in range(first, last):
        torch.manual_seed(number)
        metrics.append(dict(stage.step(number)))
    return metrics


# --- codes and loss ---


def some_scores(rows: int = 12, columns: int = 5) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)) * 2 - 1


def published_codes(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """As the algorithm is printed: a matrix Q [prototypes, B] whose rows and columns are scaled in turns."""
    q = torch.exp(scores.double() / epsilon).T
    q /= q.sum()
    prototypes, batch = q.shape
    for _ in range(iterations):
        q /= q.sum(dim=1, keepdim=True) * prototypes
        q /= q.sum(dim=0, keepdim=True) * batch
    return (q * batch).T


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.2, 1), (1.0, 10)])
def test_codes_are_those_of_the_published_algorithm(epsilon: float, iterations: int) -> None:
    codes = sinkhorn(some_scores(), epsilon, iterations)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(
        codes.double(), published_codes(some_scores(), epsilon, iterations), atol=1e-5, rtol=1e-4
    )


def test_every_picture_has_a_whole_code_and_every_prototype_the_same_share_of_the_batch() -> None:
    codes = sinkhorn(some_scores(), 0.5, 100)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(12))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((5,), 12 / 5), atol=1e-3, rtol=0)


def test_codes_are_numbers_however_small_epsilon_is_and_in_float32_whatever_the_scores_are() -> None:
    codes = sinkhorn(some_scores().bfloat16(), 1e-4, 3)
    assert codes.dtype == torch.float32
    assert bool(codes.isfinite().all())
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(12))


def test_the_loss_is_the_cross_entropy_of_every_other_view_with_a_large_views_code() -> None:
    scores = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    codes = torch.softmax(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2)), dim=2)
    terms = []
    for large in range(2):
        for other in range(4):
            for picture in range(3):
                if other != large:
                    row = [math.exp(value / 0.1) for value in scores[other, picture].double().tolist()]
                    code = codes[large, picture].double().tolist()
                    terms.append(-sum(q * math.log(p / sum(row)) for q, p in zip(code, row, strict=True)))
    assert len(terms) == 18
    assert swapped_loss(scores, codes, 0.1).item() == pytest.approx(sum(terms) / 18, rel=1e-5)


# --- training ---


def recall(network: SmallEncoder) -> float:
    """In what fraction of new views the picture itself is the most similar of all."""
    torch.manual_seed(10_000)
    bank = pictures()
    views = embed(network, MemoryBank(random_views(bank.pictures)))
    return float(((views @ embed(network, bank).T).argmax(dim=1) == torch.arange(len(bank))).float().mean())


@pytest.mark.slow
def test_after_a_short_training_a_view_finds_its_own_picture() -> None:
    network = encoder()
    untrained = recall(network)
    stage = training(network, steps=60, batch_size=24, prototypes=128, learning_rate=3e-3, epsilon=0.03)
    metrics = train(stage, 0, 60)
    trained = recall(network)
    assert trained > 15 / len(pictures())
    assert trained > untrained + 0.1
    assert sum(m["loss"] for m in metrics[-10:]) < 0.95 * sum(m["loss"] for m in metrics[:10])


def test_a_trained_encoder_spreads_pictures_over_many_directions() -> None:
    network = encoder()
    metrics = train(training(network, learning_rate=3e-3), 0, 30)
    cosines = embed(network, pictures()) @ embed(network, pictures()).T
    others = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    assert float(others.mean()) < 0.8
    assert float(others.std()) > 0.1
    assert metrics[-1]["prototypes_used"] > 0.2


@pytest.mark.parametrize("stop", [1, 4])  # while prototypes are frozen, and afterwards
def test_a_stage_that_goes_on_equals_one_that_was_never_stopped(stop: int) -> None:
    whole, halved = encoder(), encoder()
    uninterrupted = training(whole, steps=6)
    metrics = train(uninterrupted, 0, 6)
    first = training(halved, steps=6)
    train(first, 0, stop)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    fresh = training(encoder(seed=5), steps=6)
    fresh.load_state(saved)
    assert train(fresh, stop, 6) == metrics[stop:]
    assert fresh.state().keys() == uninterrupted.state().keys()
    for name, tensor in uninterrupted.state().items():
        assert torch.equal(tensor, fresh.state()[name]), name


def test_a_state_with_another_number_of_prototypes_does_not_fit() -> None:
    saved = training(encoder(), prototypes=16).state()
    with pytest.raises(ValueError, match="another number of prototypes"):
        training(encoder()).load_state(saved)


def test_prototypes_stay_for_the_first_epoch_and_have_length_1_when_a_step_begins() -> None:
    stage = training(encoder(), steps=9, learning_rate=0.1)
    before = stage.state()["prototypes"].clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(32))
    train(stage, 0, 3)  # 48 pictures, 16 a step
    torch.testing.assert_close(stage.state()["prototypes"], before, atol=1e-6, rtol=0)
    train(stage, 3, 4)
    moved = stage.state()["prototypes"].clone()
    assert float((moved - before).abs().min()) > 0.01
    assert float((moved.norm(dim=1) - 1).abs().max()) > 0.01  # Adam's step, which the next one takes back
    seen = []
    inner = stage.encoder.pooled

    def pooled(prepared: Tensor) -> Tensor:
        seen.append(stage.state()["prototypes"].norm(dim=1).clone())
        return inner(prepared)

    stage.encoder.pooled = pooled  # type: ignore[method-assign]
    train(stage, 4, 5)
    torch.testing.assert_close(seen[0], torch.ones(32))


def test_without_frozen_epochs_prototypes_move_at_once() -> None:
    stage = training(encoder(), frozen_epochs=0.0)
    before = stage.state()["prototypes"].clone()
    train(stage, 0, 1)
    assert not torch.allclose(stage.state()["prototypes"], before, atol=1e-5)


def test_the_rate_falls_as_half_a_cosine() -> None:
    metrics = train(training(encoder(), steps=4, learning_rate=1e-3), 0, 4)
    assert [m["learning_rate"] for m in metrics] == pytest.approx([1e-3, 0.8535534e-3, 0.5e-3, 0.1464466e-3])


def test_the_stage_trains_the_encoder_that_it_was_given_and_draws_nothing_at_its_start() -> None:
    network = encoder()
    before = [parameter.clone() for parameter in network.parameters()]
    torch.manual_seed(3)
    stage = training(network)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    train(stage, 0, 1)
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_two_large_views_have_the_pictures_size_and_small_ones_three_sevenths_of_it() -> None:
    sizes = []
    network = encoder()
    inner = network.pooled

    def pooled(prepared: Tensor) -> Tensor:
        sizes.append(tuple(prepared.shape))
        return inner(prepared)

    network.pooled = pooled  # type: ignore[method-assign]
    train(training(network, small_views=3), 0, 1)
    train(training(network, small_views=0), 0, 1)
    assert sizes == [(32, 3, 40, 40), (48, 3, 17, 17), (32, 3, 40, 40)]


def test_a_head_that_was_given_is_trained() -> None:
    network = encoder()
    head = network.projection()
    before = [parameter.clone() for parameter in head.parameters() if parameter.ndim > 1]
    stage = SwavTraining(network, pictures(), SwavSettings(batch_size=8), head=head, seed=0, steps=2)
    train(stage, 0, 1)
    after = [parameter for parameter in head.parameters() if parameter.ndim > 1]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_in_bfloat16_the_loss_is_about_the_same() -> None:
    losses = [train(training(encoder(), precision=name), 0, 1)[0]["loss"] for name in ("fp32", "bf16")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_one_picture_alone_is_no_failure() -> None:
    (metrics,) = train(training(encoder(), count=1), 0, 1)
    assert math.isfinite(metrics["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "encoder.batch_size must be at least 2, not 1"),
        ({"prototypes": 1}, "encoder.prototypes must be at least 2, not 1"),
        ({"iterations": 0}, "encoder.iterations must be at least 1, not 0"),
        ({"small_views": -1}, "encoder.small_views must be at least 0, not -1"),
        ({"learning_rate": 0.0}, "encoder.learning_rate must be a finite number above 0, not 0"),
        ({"temperature": math.nan}, "encoder.temperature must be a finite number above 0, not nan"),
        ({"epsilon": math.inf}, "encoder.epsilon must be a finite number above 0, not inf"),
        ({"weight_decay": -1.0}, "encoder.weight_decay must be a finite number of at least 0, not -1"),
        ({"frozen_epochs": -1.0}, "encoder.frozen_epochs must be a finite number of at least 0, not -1"),
        (
            {"small_area": 0.5, "large_area": 0.4},
            (
                "views show parts of a picture: 0 < encoder.small_area <= encoder.large_area <= 1 must hold, "
                "not 0.5 and 0.4"
            ),
        ),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        SwavSettings(**changes)
    assert str(caught.value) == message
