"""Every stage brings what it needs to its device: on "meta", which knows shapes alone, a stray tensor is an error.

No GPU takes part. What a GPU would compute is not tested here, nor what only a GPU refuses.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from mggc_edge.pruning.gan_slimming.steering import Steering
from mggc_edge.training.processes import Processes
from tests.training.process_stages import STAGES

META = torch.device("meta")


@pytest.fixture
def _shapes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stage run where tensors have no values: what it reads of them is 1, and nothing needs a kernel."""

    def ones(tensor: Tensor) -> Any:
        return torch.ones(tensor.shape).numpy().tolist()

    monkeypatch.setattr(Tensor, "item", lambda _: 1.0)
    monkeypatch.setattr(Tensor, "tolist", ones)
    monkeypatch.setattr(Tensor, "__int__", lambda _: 1)
    for name in ("Adam", "AdamW"):
        plain = getattr(torch.optim, name)
        monkeypatch.setattr(torch.optim, name, lambda *a, plain=plain, fused, **more: plain(*a, **more))
    monkeypatch.setattr(Steering, "threshold", lambda *_: 0.0)  # looks at the values of the scales, on the processor
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.usefixtures("_shapes_alone")
@pytest.mark.parametrize("name", STAGES)
def test_a_step_and_a_look_at_held_out_pictures_need_nothing_from_another_device(name: str) -> None:
    stage, modules = STAGES[name](2, Processes(META))
    stage.step(0)
    stage.step(stage.steps - 1)  # finetuning looks at the held-out pictures
    places = {value.device for module in modules.values() for value in module.parameters()}
    gradients = {value.grad.device for m in modules.values() for value in m.parameters() if value.grad is not None}
    assert places == gradients == {META}


@pytest.mark.usefixtures("_shapes_alone")
def test_a_stray_tensor_would_be_an_error() -> None:
    with pytest.raises(RuntimeError, match="Tensor on device cpu is not on the expected device meta"):
        torch.ones(2, device=META) + torch.ones(2)
