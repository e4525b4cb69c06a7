"""What the tests of training share: tiny networks, random pictures, folders of them, and stages run by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.pictures import PictureFormat
from mggc_edge.training.bank import GivenPictures, PictureSet, Pixels
from mggc_edge.training.loop import Stage
from mggc_edge.training.order import step_seed
from tests.models.model_helpers import randomise

torch.set_num_threads(1)

RGB = PictureFormat.for_channels(3)
SIZE = (16, 16)


def levels(count: int, size: Size = SIZE, *, channels: int = 3, seed: int = 0) -> Pixels:
    """Random levels, uint8 [count, C, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, *size), dtype=np.uint8)


def pictures(count: int, size: Size = SIZE, *, channels: int = 3, seed: int = 0) -> GivenPictures:
    """A set of random pictures."""
    return GivenPictures(levels(count, size, channels=channels, seed=seed), PictureFormat.for_channels(channels))


def fresh(spec: NetworkSpec, *, seed: int, size: Size = SIZE) -> Network:
    """A network with new weights, always the same for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(spec, layer_table(spec, size))


def trained(spec: NetworkSpec, *, seed: int, size: Size = SIZE) -> Network:
    """A network with weights and statistics as after training, in evaluation mode."""
    network = Network(spec, layer_table(spec, size))
    randomise(network, seed)
    return network.eval()


def run_steps(stage: Stage, seed: int, first: int, last: int) -> list[dict[str, object]]:
    """Run steps `first` .. `last` - 1 as the loop does."""
    found = []
    for number in range(first, last):
        torch.manual_seed(step_seed(seed, stage.name, number))
        found.append(dict(stage.step(number)))
    return found


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy that later steps do not change."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def assert_equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """The same tensors, bit for bit."""
    assert set(found) == set(wanted)
    different = [name for name, value in wanted.items() if not torch.equal(found[name], value)]
    assert different == []


def write_pictures(folder: Path, names: Sequence[str], size: Size = (12, 10), seed: int = 0) -> list[Path]:
    """Write random RGB pictures."""
    paths = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng((seed, number)).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def broken(path: Path) -> Path:
    """Write something that is called a picture and is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no picture")
    return path


def views_of(a_set: PictureSet) -> list[bytes]:
    """The pictures of a set as bytes, for comparing sets."""
    return [a_set.pixels(number).tobytes() for number in range(len(a_set))]
