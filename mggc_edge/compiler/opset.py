"""Another version of the ONNX operators for a graph, by onnx's own converter, where that can do it exactly.

The converter knows no way back for Pad, whose version 18 added an input that says which axes are padded. A Pad without
that input is the same operator in versions 13 to 18 and after, wrapping aside, so it is left as it is meanwhile. What
comes out is checked as a graph; that it computes the same is proven by whoever writes the file, as for any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mggc_edge.compiler.facts import opset_of
from mggc_edge.compiler.passes.editor import STANDARD
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx

HIDDEN = "mggc_edge.hidden"  # domain of nodes that the converter leaves alone
PAD_FROM, PAD_TO = 13, 23  # versions among which a Pad without axes is the same
MODES = (b"constant", b"reflect", b"edge")
# Ways out where an operator has no equal. What was wanted may be the newest that a target reads, or the oldest.
LOWER = (
    "give a newer opset that the target reads (--opset, or export.opset), or another target (portable keeps the "
    "file's own), or write the file with an older opset"
)
HIGHER = "write the file with a newer opset, or give an older one that the target reads: --opset, or export.opset"


def in_opset(model: onnx.ModelProto, wanted: int) -> onnx.ModelProto:
    """Return a graph in another version of the operators: itself, where that is the one that it has.

    Raises:
        ArtifactError: an operator has no equal in that version.
    """
    there = opset_of(model)
    if there == wanted:
        return model
    onnx_module = require("onnx", extra="onnx")
    converter = require("onnx.version_converter", extra="onnx")
    copy = type(model)()
    copy.CopyFrom(model)
    hidden = [node for node in copy.graph.node if _is_plain_pad(node)] if min(there, wanted) >= PAD_FROM else []
    for node in hidden:
        node.domain = HIDDEN
    if hidden:
        copy.opset_import.append(onnx_module.helper.make_opsetid(HIDDEN, 1))
    try:
        made: onnx.ModelProto = converter.convert_version(copy, wanted)
        for node in made.graph.node:
            if node.domain == HIDDEN:
                node.domain = ""
        kept = [type(entry).FromString(entry.SerializeToString()) for entry in made.opset_import]
        kept = [entry for entry in kept if entry.domain != HIDDEN]
        del made.opset_import[:]
        made.opset_import.extend(kept)
        made.ir_version = onnx_module.helper.find_min_ir_version_for(kept, ignore_unknown=True)
        onnx_module.checker.check_model(made, full_check=True)
    except Exception as error:  # the C++ converter raises RuntimeError with a line of its own source in it
        raise ArtifactError(
            f"a graph of opset {there} cannot be had in opset {wanted}: {_reason(error)}",
            hint=LOWER if wanted < there else HIGHER,
        ) from error
    if opset_of(made) != wanted:
        raise ArtifactError(f"onnx's converter gave opset {opset_of(made)}, and opset {wanted} was asked for")
    return made


def _is_plain_pad(node: onnx.NodeProto) -> bool:
    """Return whether a node is a Pad of all axes, in a mode that all of these versions have."""
    if node.op_type != "Pad" or node.domain not in STANDARD or any(node.input[3:]):
        return False
    return all(entry.s in MODES for entry in node.attribute if entry.name == "mode")


def _reason(error: Exception) -> str:
    """Return what the converter says, without the place in its source."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.split("Assertion `false` failed: ")[-1][:160]
