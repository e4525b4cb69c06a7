"""A state holds an optimizer exactly, and a damaged one is refused in one sentence."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mggc_edge.errors import ArtifactError, OutputError
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part, read_state, save_state
from tests.training.training_helpers import assert_equal, copied

FACTS = {"step": 3, "steps": 10, "journal": 120}
SOME = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(4), "half": torch.ones(2).bfloat16()}


def adam(*, steps: int) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(5))]
    optimizer = torch.optim.Adam(parameters, 0.1, betas=(0.5, 0.999), fused=True)
    for step in range(steps):
        descend(parameters, optimizer, step)
    return parameters, optimizer


def descend(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, step: int) -> None:
    torch.manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def test_what_is_saved_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    save_state(path, SOME, FACTS)
    found = read_state(path)
    assert found is not None
    tensors, facts = found
    assert facts == FACTS
    assert_equal(tensors, SOME)
    assert {name: value.dtype for name, value in tensors.items()} == {name: v.dtype for name, v in SOME.items()}
    assert [file.name for file in tmp_path.iterdir()] == ["x.state"]


def test_where_there_is_no_file_there_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "x.state") is None


def test_transposed_tensors_and_tensors_with_gradients_can_be_saved(tmp_path: Path) -> None:
    value = torch.arange(6.0).reshape(2, 3).requires_grad_()
    save_state(tmp_path / "x.state", {"t": value.T, "w": torch.nn.Parameter(torch.ones(2))}, {})
    found = read_state(tmp_path / "x.state")
    assert found is not None
    assert_equal(found[0], {"t": value.detach().T, "w": torch.ones(2)})


def test_an_optimizer_goes_on_from_its_tensors_bit_for_bit(tmp_path: Path) -> None:
    parameters, optimizer = adam(steps=3)
    save_state(tmp_path / "x.state", optimizer_tensors("optimizer.G", optimizer), FACTS)
    weights = [parameter.detach().clone() for parameter in parameters]
    saved = read_state(tmp_path / "x.state")
    assert saved is not None
    assert set(part(saved[0], "optimizer.G")) == {f"{n}.{k}" for n in "01" for k in ("step", "exp_avg", "exp_avg_sq")}
    others, another = adam(steps=0)
    with torch.no_grad():
        for other, weight in zip(others, weights, strict=True):
            other.copy_(weight)
    load_optimizer("optimizer.G", another, saved[0])
    for step in range(3, 6):
        descend(parameters, optimizer, step)
        descend(others, another, step)
    for parameter, other in zip(parameters, others, strict=True):
        assert torch.equal(parameter, other)
    assert_equal(optimizer_tensors("", another), optimizer_tensors("", optimizer))


def test_a_loaded_optimizer_shares_no_memory_with_what_was_loaded() -> None:
    parameters, optimizer = adam(steps=2)
    tensors = copied(optimizer_tensors("o", optimizer))
    before = copied(tensors)
    load_optimizer("o", optimizer, tensors)
    descend(parameters, optimizer, 2)
    assert_equal(tensors, before)


def test_loading_changes_what_an_optimizer_remembers_and_none_of_its_settings() -> None:
    _, optimizer = adam(steps=2)
    _, another = adam(steps=0)
    another.param_groups[0]["lr"] = 0.7
    load_optimizer("o", another, optimizer_tensors("o", optimizer))
    assert another.param_groups[0]["lr"] == 0.7
    load_optimizer("o", another, {})
    assert optimizer_tensors("o", another) == {}


def test_parts_are_told_by_the_whole_first_word() -> None:
    tensors = named("G", {"w": torch.ones(1)}) | named("G_A", {"w": torch.zeros(1)})
    assert set(tensors) == {"G.w", "G_A.w"}
    assert_equal(part(tensors, "G"), {"w": torch.ones(1)})


def written(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> None:
    path.write_bytes(safetensors.torch.save(tensors, metadata=metadata))


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    save_state(path, SOME, FACTS)
    whole = path.read_bytes()
    for damaged in (b"", whole[:4], whole[: len(whole) // 2], whole[:-1], b"\xff" * 200, struct.pack("<Q", 2**40)):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"the state '.*x\.state' is damaged: .+") as caught:
            read_state(path)
        assert caught.value.hint == "remove it to do this stage again"


@pytest.mark.parametrize(
    "metadata",
    [None, {"other": "1"}, {"mggc_edge.facts": "{"}, {"mggc_edge.facts": "[1]"}, {"mggc_edge.facts": "[" * 100_000}],
)
def test_a_file_of_tensors_without_our_facts_is_no_state(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "x.state"
    written(path, {"w": torch.ones(1)}, metadata)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_state(path)


def test_facts_that_are_no_json_numbers_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_state(tmp_path / "x.state", SOME, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_on_a_full_disk_the_state_before_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.state"
    save_state(path, SOME, FACTS)
    whole = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device") as caught:
        save_state(path, {"w": torch.zeros(100)}, {"step": 4})
    assert caught.value.hint == "free some space, or choose a folder on another disk"
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["x.state"]
    assert json.loads(json.dumps((read_state(path) or ({}, {}))[1])) == FACTS
