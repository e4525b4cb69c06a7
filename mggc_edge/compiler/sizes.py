"""Which sizes of pictures a file takes that leaves them open: those that it can halve as often as it does.

A network that halves a picture and doubles it again gives another size where a half is not whole, and says nothing: two
halvings turn 66x70 into 68x72. Where the parts that it joins then differ, it fails in the middle of a run. So the size
that comes out is inferred: it must be in the same proportion as at sizes that are multiples of m, where m is the
smallest power of 2 at whose multiples the proportion is always the same. A network without such an m, as one whose
borders shrink the picture, is not judged.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from mggc_edge.compiler.facts import read_onnx
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.models.layers import Size

if TYPE_CHECKING:
    import onnx

MULTIPLES = tuple(2**power for power in range(1, 13))
LARGEST_CONSTANT = 64  # elements of those whose values sizes may depend on

_Proportion = tuple[Fraction, Fraction]


def check_picture_size(path: Path, size: Size) -> None:
    """Check a size for an ONNX file; one that fixes its size itself is left alone.

    Raises:
        ArtifactError: the file cannot be read, or halves pictures of this size to parts that are not whole.
    """
    check_size(path, read_onnx(path), size)


def check_size(source: Path, model: onnx.ModelProto, size: Size) -> None:
    """Check a size (height, width) for a model that leaves it open, read from `source`; raises as above."""
    picture = picture_input(model)
    sides = picture.type.tensor_type.shape.dim[2:] if picture is not None else ()
    if len(sides) != 2 or all(side.dim_value > 0 for side in sides):
        return
    bare = type(model)()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if len(tensor.raw_data) > LARGEST_CONSTANT * 8:
            tensor.ClearField("raw_data")
    found = output_size(bare, size)
    for multiple in MULTIPLES:
        near = (_up(size[0], multiple), _up(size[1], multiple))
        usual = _proportion(bare, near)
        if usual is None or usual != _proportion(bare, (near[0] + multiple, near[1] + multiple)):
            continue
        if near == size or (found is not None and _ratio(size, found) == usual):
            return
        gives = "cannot join its parts" if found is None else f"gives pictures of {found[0]}x{found[1]}"
        raise ArtifactError(
            f"'{source}' cannot halve pictures of {size[0]}x{size[1]} as often as it does, and {gives}",
            hint=f"both sides must be multiples of {multiple}",
        )


def picture_input(model: onnx.ModelProto) -> onnx.ValueInfoProto | None:
    """Return the first input of a model that is no constant; None where all are."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return next((value for value in model.graph.input if value.name not in constants), None)


def fix_size(model: onnx.ModelProto, size: Size) -> None:
    """Let a model take pictures of one size; what it says of its other sizes is inferred anew."""
    picture = picture_input(model)
    assert picture is not None
    for dim, side in zip(picture.type.tensor_type.shape.dim[2:], size, strict=True):
        dim.dim_value = side
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.Clear()
    del model.graph.value_info[:]


def output_size(model: onnx.ModelProto, size: Size) -> Size | None:
    """Return the size of what a model makes of pictures of a size; None where that contradicts itself, or is not known.

    The model is changed: it takes pictures of that size.
    """
    fix_size(model, size)
    try:
        inferred = require("onnx.shape_inference", extra="onnx").infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception:  # noqa: BLE001  the C++ inference raises many kinds
        return None
    sides = [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim][2:]
    return (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 0 else None


def _proportion(model: onnx.ModelProto, size: Size) -> _Proportion | None:
    out = output_size(model, size)
    return None if out is None else _ratio(size, out)


def _ratio(size: Size, out: Size) -> _Proportion:
    return Fraction(out[0], size[0]), Fraction(out[1], size[1])


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
