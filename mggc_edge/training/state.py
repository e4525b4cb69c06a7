"""The state of a stage on disk: one file of tensors and facts, so that what it says belongs together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mggc_edge.artifacts import atomic_write
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

_FACTS = "mggc_edge.facts"


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers (moments, step counts), by name; its settings are not part of it."""
    return {
        f"{prefix}.{number}.{key}": value
        for number, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], late: Sequence[Tensor] = ()
) -> None:
    """Give an optimizer of the same parameters what `optimizer_tensors` returned; ValueError for anything else.

    Adam, AdamW, or SGD with momentum. `late`: parameters that have no moments until a later step gives them gradients.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part(tensors, prefix).items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value.clone()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    may_lack = {id(parameter) for parameter in late}
    needed = {place for place, parameter in enumerate(parameters) if id(parameter) not in may_lack}
    if state and not needed <= set(state) <= set(range(len(parameters))):
        raise ValueError(f"'{prefix}' has moments of other parameters")
    for place, values in state.items():
        moments = ("momentum_buffer",) if isinstance(optimizer, torch.optim.SGD) else ("exp_avg", "exp_avg_sq")
        wanted = dict.fromkeys(moments, parameters[place].shape)
        if not isinstance(optimizer, torch.optim.SGD):
            wanted["step"] = torch.Size()
        # The fused kernels trust what they are given: a moment of another shape would be read beyond its end.
        if {key: value.shape for key, value in values.items()} != wanted:
            raise ValueError(f"'{prefix}' has moments of other shapes")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix.` before their names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix.`, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts to one file, whole or not at all.

    Raises:
        OutputError: the file cannot be written; the one before it is then untouched.
    """
    safetensors = require("safetensors.torch", extra="torch")
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(path, safetensors.save(whole, metadata={_FACTS: json.dumps(facts, allow_nan=False)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what `save_state` wrote to `path`, None where there is no file.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not path.is_file():
        return None
    facts, tensors = _read(path, tensors=True)
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a state that is there, and none of its tensors.

    Raises:
        ArtifactError: the file is damaged.
    """
    return _read(path, tensors=False)[0]


def _read(path: Path, *, tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    safetensors = require("safetensors", extra="torch")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            found = {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}
    except (OSError, ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"the state '{path}' is damaged: {error}", "remove it to do this stage again") from error
    if not isinstance(facts, dict):
        raise ArtifactError(f"the state '{path}' is damaged", "remove it to do this stage again")
    return facts, found
