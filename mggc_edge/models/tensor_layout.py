"""Whether the tensors of a file are those of one known network: by their names, shapes and types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mggc_edge.errors import CheckpointError
from mggc_edge.models.state_file import TensorHeader
from mggc_edge.models.tensor_values import FLOATING

# PyTorch counts the batches that a norm has seen, since 0.4.1; no output depends on it.
COUNTER = "num_batches_tracked"


def check_layout(
    path: Path,
    found: Mapping[str, object],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    otherwise: str,
    left_out: str | None = None,
    hint: str,
) -> dict[str, TensorHeader]:
    """Return the headers of the wanted tensors, in the order of `wanted`.

    Args:
        path: of the file.
        found: what it holds, by name; what is no TensorHeader is no tensor.
        wanted: shapes by name.
        otherwise: what a file with other tensors is, such as "no ResNet-50".
        left_out: a pattern; tensors whose whole names it matches may be there as well, and so may COUNTERs.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, or not of floats.
    """
    missing = [name for name in wanted if not isinstance(found.get(name), TensorHeader)]
    more = [
        name
        for name in found
        if name not in wanted and not name.endswith(COUNTER) and not (left_out and re.fullmatch(left_out, name))
    ]
    if missing or more:
        parts = [f"{word} {some(names)}" for word, names in (("is missing", missing), ("has", more)) if names]
        raise CheckpointError(f"'{path}' is {otherwise}: it {' and '.join(parts)}", hint)
    headers = {name: header for name in wanted if isinstance(header := found[name], TensorHeader)}
    for name, header in headers.items():
        if header.shape != wanted[name]:
            raise CheckpointError(
                f"'{path}' is {otherwise}: '{name}' has shape {list(header.shape)}, not {list(wanted[name])}", hint
            )
        if header.dtype not in FLOATING:
            raise CheckpointError(f"'{path}': '{name}' has element type {header.dtype}, but weights are floats")
    return headers


def some(names: Sequence[str], count: int = 4) -> str:
    """Return the first few names for a message, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
