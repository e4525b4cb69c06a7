"""Encoders turn pictures of any size, range and number of channels into embeddings; views are random and bounded."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from mggc_edge.pictures import PictureFormat
from mggc_edge.pruning.mggc.augment import random_views
from mggc_edge.pruning.mggc.encoder import SmallEncoder, embed, reduced
from mggc_edge.training.bank import ProceduralPictures
from tests.pruning.mggc.game_helpers import MemoryBank, random_bank


@cache
def pictures(count: int = 48) -> MemoryBank:
    bank = ProceduralPictures(count, (40, 40), PictureFormat.for_channels(3), seed=0)
    return MemoryBank(bank.batch(range(count)))


def encoder(seed: int = 0, channels: int = 3) -> SmallEncoder:
    torch.manual_seed(seed)
    return SmallEncoder(channels)


def test_embeddings_have_length_1_and_do_not_depend_on_the_batch() -> None:
    network = encoder()
    together = embed(network, pictures())
    assert (together.dtype, tuple(together.shape)) == (torch.float32, (48, 128))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(48))
    torch.testing.assert_close(embed(network, pictures(), batch_size=5), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(embed(network, pictures(), numbers=[7, 3]), together[[7, 3]], atol=1e-5, rtol=0)
    assert network.training
    assert not together.requires_grad
    assert not together.is_inference()


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 64), (3, 100, 40), (4, 8, 8), (3, 1, 1)])
def test_pictures_of_any_size_and_number_of_channels_have_an_embedding(channels: int, height: int, width: int) -> None:
    values = torch.rand(2, channels, height, width)
    assert tuple(encoder(channels=channels)(values).shape) == (2, 128)
    assert tuple(reduced(values, 64).shape) == (2, channels, min(height, 64), min(width, 64))


def test_pictures_of_another_range_are_seen_as_if_in_minus_1_to_1() -> None:
    values = random_bank(2, 3, 16).pictures
    torch.manual_seed(0)
    other = SmallEncoder(low=0, high=255)
    torch.testing.assert_close(other.eval()((values + 1) * 127.5), encoder().eval()(values), atol=1e-5, rtol=0)


def test_a_reduced_picture_is_the_mean_of_its_pixels() -> None:
    values = random_bank(2, 3, 128).pictures
    torch.testing.assert_close(reduced(values, 64), torch.nn.functional.avg_pool2d(values, 2))
    small = random_bank(2, 3, 64).pictures
    assert reduced(small, 64) is small


# --- views ---


def test_views_keep_shape_and_range_and_differ() -> None:
    torch.manual_seed(0)
    values = pictures().pictures
    first, second = random_views(values), random_views(values)
    assert first.shape == values.shape
    assert float(first.min()) >= -1
    assert float(first.max()) <= 1
    assert bool(((first - second).abs().amax(dim=(1, 2, 3)) > 0.05).all())
    grey = (first.amax(dim=1) - first.amin(dim=1)).amax(dim=(1, 2)) < 1e-4
    assert 0 < int(grey.sum()) < 25


def test_a_view_of_a_plain_picture_is_plain() -> None:
    torch.manual_seed(0)
    views = random_views(torch.full((8, 3, 12, 20), 0.25))
    torch.testing.assert_close(views, views[:, :, :1, :1].expand_as(views), atol=1e-5, rtol=0)


def test_views_show_a_part_and_are_mirrored_in_half_of_the_draws() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-0.4, 0.4, 32).expand(400, 3, 32, 32)
    views = random_views(ramp)
    slope = views[:, 0, 16, -1] - views[:, 0, 16, 0]
    assert int((slope < 0).sum()) == pytest.approx(200, abs=40)
    assert float(slope.abs().max()) < 0.8 * 1.4 * 1.4 + 1e-4


def test_views_have_the_size_that_is_asked_for_and_show_no_more_than_the_largest_part() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-0.4, 0.4, 64).expand(200, 3, 64, 64)
    views = random_views(ramp, (20, 30), (0.04, 0.09))
    assert tuple(views.shape) == (200, 3, 20, 30)
    span = (views[:, 0, 10, -1] - views[:, 0, 10, 0]).abs()
    # A side of 0.3 at most, stretched by up to sqrt(4/3), times contrast and brightness of up to 1.4.
    assert float(span.max()) < 0.8 * 0.3 * (4 / 3) ** 0.5 * 1.4**2
    assert float(span.median()) > 0.8 * 0.15
