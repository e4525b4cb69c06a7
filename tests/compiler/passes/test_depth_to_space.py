"""DepthToSpace as two transpositions."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from mggc_edge.compiler.passes.depth_to_space import DepthToSpace
from tests.compiler.passes.pass_helpers import Shape, applied, build, operators, refused

PASS = DepthToSpace()


def spread(block: int, shape: Shape, mode: str = "CRD") -> onnx.ModelProto:
    return build([helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=block, mode=mode)], shape)


@pytest.mark.parametrize("block", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 7), (2, 4, 1)])
def test_any_block_and_any_size_is_exact(block: int, size: tuple[int, int, int]) -> None:
    shape = (1, size[0] * block**2, *size[1:])
    rewritten = applied(spread(block, shape), PASS, shape)
    assert operators(rewritten) == ["Reshape", "Transpose", "Reshape", "Transpose", "Reshape"]


def test_the_batch_may_be_open_and_what_follows_stays() -> None:
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["d"], blocksize=2, mode="CRD"),
        helper.make_node("Tanh", ["d"], ["y"]),
    ]
    applied(build(nodes, ("batch", 12, 3, 5)), PASS, (3, 12, 3, 5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (spread(2, (1, 8, 3, 3), "DCR"), "its channels do not vary slowest"),
        (spread(2, (1, 8, None, 3)), "its size is not known"),
    ],
)
def test_a_precondition_that_does_not_hold_is_the_reason(model: onnx.ModelProto, reason: str) -> None:
    assert refused(model, PASS) == reason
