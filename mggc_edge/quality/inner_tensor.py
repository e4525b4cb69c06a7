"""An ONNX network whose output is one of its inner tensors."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx

_SHOWN = 3  # names in a hint


def with_inner_output(path: Path, tensor: str) -> tuple[bytes, tuple[str, ...]]:
    """Return an ONNX file's network with an inner tensor among its outputs, and the names of the outputs it had.

    Its only output stays beside the tensor; several outputs are left out, so that nothing is computed for them.
    Tensors inside subgraphs and functions cannot be reached.

    Args:
        path: an ONNX file that is trusted or has been checked: it is parsed as it is.
        tensor: the name of what a node of the graph gives.

    Returns:
        The changed network as the bytes of an ONNX file, and the names of the file's own outputs.

    Raises:
        ArtifactError: the file cannot be read, or has no such tensor; the hint names close ones.
    """
    onnx_module = require("onnx", extra="onnx")
    model = _parsed(path)
    own = tuple(output.name for output in model.graph.output)
    inner = [name for node in model.graph.node for name in node.output if name]
    if tensor not in own:
        if tensor not in inner:
            close = difflib.get_close_matches(tensor, inner, n=_SHOWN, cutoff=0.4)
            named = f"did you mean {', '.join(close)}?" if close else f"such as {', '.join(inner[-_SHOWN:])}"
            raise ArtifactError(f"'{path}' has no inner tensor '{tensor}'", hint=named if inner else None)
        model.graph.output.append(onnx_module.ValueInfoProto(name=tensor))  # the engine finds type and shape itself
    if len(own) > 1:
        (kept,) = (output for output in model.graph.output if output.name == tensor)
        copied = onnx_module.ValueInfoProto()
        copied.CopyFrom(kept)
        del model.graph.output[:]
        model.graph.output.append(copied)
    data: bytes = model.SerializeToString()
    return data, own


def _parsed(path: Path) -> onnx.ModelProto:
    onnx_module = require("onnx", extra="onnx")
    try:
        model: onnx.ModelProto = onnx_module.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror}") from error
    except Exception as error:  # protobuf's own kinds of error differ between its versions
        raise ArtifactError(f"'{path}' is not a valid ONNX file", hint="is the file complete?") from error
    return model
