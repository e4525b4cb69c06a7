"""What a network family must state, and the helpers that families share when they read a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mggc_edge.errors import CheckpointError
from mggc_edge.models.layers import REMOVABLE_SUFFIX, LayerTable, Size
from mggc_edge.models.spec import NetworkSpec, NormKind

Shapes = Mapping[str, tuple[int, ...]]
Role = Literal["generator", "discriminator"]
NormStats = Literal["instance", "running"]
INDEX = "(0|[1-9][0-9]{0,3})"  # a layer's number in a key, written in the one way that leads back to the key


@dataclass(frozen=True)
class Family:
    """A network family: one file that draws its layer table and reads its spec from the shapes of a state dict.

    Attributes:
        recognises: whether the keys of a state dict are of this family (cheap; no promise that they fit).
        infer: the spec that a state dict was saved from; raises CheckpointError when it cannot be one of this family.
        draw: the layer table of a spec at a picture size; raises SpecError when the size does not fit.
        title: the architecture's usual name, such as "resnet_9blocks".
        default_image_size: what the architecture is usually trained at.
        removable_groups: the channel groups that may be empty, and then are written by no row.
    """

    name: str
    role: Role
    recognises: Callable[[Shapes], bool]
    infer: Callable[[Shapes, NormStats], NetworkSpec]
    draw: Callable[[NetworkSpec, Size], LayerTable]
    title: Callable[[NetworkSpec], str]
    default_image_size: Callable[[NetworkSpec], Size]
    removable_groups: Callable[[NetworkSpec], tuple[str, ...]] = lambda _: ()


def inner_group(block: int) -> str:
    """Return the name of the inner channel group of residual block `block`, counted from 1."""
    return f"block{block}{REMOVABLE_SUFFIX}"


def inner_groups(spec: NetworkSpec) -> tuple[str, ...]:
    """Return the inner channel groups of all residual blocks, of removed ones too."""
    return tuple(inner_group(block) for block in range(1, spec.blocks + 1))


def weight(shapes: Shapes, name: str) -> tuple[int, int, int, int]:
    """Return the shape of the convolution weight under the prefix `name`.

    Raises:
        CheckpointError: it is missing, not four-dimensional, or empty.
    """
    shape = shapes.get(f"{name}.weight")
    if shape is None:
        raise CheckpointError(f"the checkpoint has no '{name}.weight'", hint="is the file complete?")
    if len(shape) != 4 or min(shape) < 1:
        raise CheckpointError(f"'{name}.weight' has shape {list(shape)}, but a convolution's has four sizes")
    return (shape[0], shape[1], shape[2], shape[3])


def infer_norm(shapes: Shapes, *, conv: str, norm: str, norm_stats: NormStats) -> NormKind:
    """Return the kind of norm from the keys of one convolution and the norm after it.

    No parameters: plain instance norm, whatever running statistics were left in the file (old PyTorch kept them).
    Parameters and running statistics: batch norm, unless the convolution has a bias, which only instance norm leaves
    room for. `norm_stats="running"` takes running statistics at their word.
    """
    affine = f"{norm}.weight" in shapes
    running = f"{norm}.running_mean" in shapes
    bias = f"{conv}.bias" in shapes
    if running and (norm_stats == "running" or (affine and not bias)):
        return "batch"
    if affine:
        return "instance_affine"
    return "instance"
