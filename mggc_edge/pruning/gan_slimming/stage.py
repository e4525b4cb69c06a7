"""GAN Slimming (Wang et al., ECCV 2020): pruning and distillation in one objective. The stage.

    min over W, gamma, max over theta  L_GAN(G(W, gamma), D_theta) + beta * L_dist(G(x), G_T(x)) + rho * |gamma|_1

A step: Adam on the weights W, SGD with momentum on the scales gamma, the proximal step

    gamma <- sign(gamma) * max(|gamma| - rho * rate, 0),

Adam on D, to which real is what the original G_T gives and generated what a picture pool holds. All rates fall as half
a cosine. `scales` says what gamma is here, `steering` how rho is chosen. A student on 8-bit grids is G_q of the paper:
its weights and activations are rounded in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mggc_edge.errors import TrainingError
from mggc_edge.models.convert import without_quantization
from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.network import Network
from mggc_edge.pruning.gan_slimming.scales import fold_scales, give_back, scaled_groups, shrink, with_scales
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.steering import Steering
from mggc_edge.training.bank import Ahead, PictureSet, to_tensor, views
from mggc_edge.training.losses import discriminator_loss, generator_loss
from mggc_edge.training.order import Share
from mggc_edge.training.pool import PicturePool
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.quantize import Grids, range_parameters, set_grids
from mggc_edge.training.schedule import half_cosine, set_rate
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part

LikenessLoss = Callable[[Tensor, Tensor], Tensor]  # of what a generator gave, and what the original gave
FITTED = 4  # how often fixed grids are fitted to what is open, until the budget is met


class GanSlimming:
    """A stage that trains a copy of the generator while its channels close, against a copy of the discriminator.

    Args:
        generator: the original, which survives; its table's picture size is the one MACs are counted at.
        start: what the student begins as: the original on 8-bit grids; None: the original.
        grids: finds the grids that fit a network in floats, for a student whose ranges are not learned; None: they stay
            those of the original, which fit it worse with every channel that closes.
        judge: a discriminator for it: of pictures, or of an input and a picture together.
        pictures: inputs, at the size from which crops are cut.
        likeness: L_dist.
        budget: fraction of the original's MACs, in (0, 1].
        steps, batch_size: how long; pictures a step of each process.

    Raises:
        PlanError: the budget cannot be met, see `Steering`.
    """

    name = "prune"
    hinted_as = "gan-slimming"  # whose settings a hint names

    def __init__(
        self,
        generator: Network,
        judge: Network,
        pictures: PictureSet,
        likeness: LikenessLoss,
        settings: SlimmingSettings,
        *,
        start: Network | None = None,
        grids: Grids | None = None,
        budget: float,
        convention: MacsConvention = "true",
        seed: int,
        steps: int,
        batch_size: int = 1,
        precision: Precision = "fp32",
        processes: Processes = ALONE,
    ) -> None:
        self.settings, self.steps, self._seed, self._precision = settings, steps, seed, precision
        self._teacher = generator.eval().requires_grad_(False)
        self._pictures, self._likeness, self._budget = pictures, likeness, budget
        self._processes, self._share = processes, Share(batch_size, processes.rank, processes.size)
        self.steering = Steering(
            generator.table,
            budget,
            convention,
            rates=[settings.scale_rate * half_cosine(step, steps) for step in range(steps)],
            closing=settings.closing,
            sums=settings.sums,
        )
        student, scales = with_scales(
            generator if start is None else start,
            None if start is None else generator,
            sums=settings.sums,
            even=settings.even,
        )
        on_grids = student.spec.quantization != "none" and not settings.learned_ranges
        self._grids = grids if on_grids else None
        # After how many steps fixed grids are fitted; after the last the budget is met, and sizes are given back. How
        # many of these are passed is kept: with other processes steps have other numbers. -1: as the step says.
        self._marks = [round(self.steering.closed * part / FITTED) for part in range(1, FITTED + 1)]
        self._passed = torch.tensor(-1)
        self.student = student.requires_grad_(True).train()
        ranges = range_parameters(self.student)
        for range_parameter in ranges:
            range_parameter.requires_grad_(settings.learned_ranges)
        self.scales = {name: nn.Parameter(scale) for name, scale in scales.items()}
        self.first_scales = {name: scale.clone() for name, scale in scales.items()}
        self._minimum = {group.name: group.minimum for group in scaled_groups(generator.table, settings.sums)}
        # In which step a channel was closed last; `steps` while it is open.
        self.since = {name: torch.full_like(scale, float(steps)) for name, scale in scales.items()}
        self._leave_out(plain=generator.spec.norm == "instance")
        self.judge = copy.deepcopy(judge).requires_grad_(True).train()
        self._conditional = judge.spec.in_channels != generator.spec.out_channels
        betas = (settings.beta_1, 0.999)
        self._adams = {
            name: torch.optim.Adam(
                _groups(network, ranges, settings.weight_decay), settings.learning_rate, betas=betas, fused=True
            )
            for name, network in (("G", self.student), ("D", self.judge))
        }
        self._sgd = torch.optim.SGD(self.scales.values(), settings.scale_rate, momentum=settings.momentum)
        self._pool = PicturePool(0 if self._conditional else settings.pool)
        self._batches = Ahead(self._batch, steps)

    def _leave_out(self, *, plain: bool) -> None:
        """Leave parameters as they are that are none of the original's, or have no effect.

        With plain norms, the 1 and 0 of those that have no scale. A bias before an instance norm, which takes it away.
        """
        for layer in self.student.table.layers:
            module = self.student.get_submodule(layer.name)
            if layer.bias and layer.norm_kind == "instance_affine":
                module.get_parameter("bias").requires_grad_(False)
            if plain and layer.output not in self.scales:
                if layer.norm is not None:
                    self.student.get_submodule(layer.norm).requires_grad_(False)
                elif layer.op == "constant":
                    module.requires_grad_(False)

    def _batch(self, step: int) -> Tensor:
        pictures, size = self._pictures, self._teacher.table.image_size
        numbers = self._share.pictures(self._seed, self.name, step, len(pictures))
        draws = self._share.draws(self._seed, f"{self.name}/views", step)
        crops = [
            views([pictures], number, size, rng, flip=self.settings.flip)[0]
            for number, rng in zip(numbers, draws, strict=True)
        ]
        return to_tensor(crops, pictures.format)

    def step(self, number: int) -> dict[str, Any]:
        """Update weights and scales, close channels, and update the discriminator."""
        s, device = self.settings, self._processes.device
        factor = half_cosine(number, self.steps)
        for optimizer in self._adams.values():
            set_rate(optimizer, s.learning_rate * factor)
        set_rate(self._sgd, s.scale_rate * factor)
        x = self._batches.get(number).to(device)
        self.judge.requires_grad_(False)
        with autocast(self._precision, device):
            with torch.no_grad():
                wanted = self._teacher(x).float()
            fake = self.student(x, self.scales).float()
            parts = {"gan": s.gan_weight * generator_loss(s.loss, self.judge(self._seen(x, fake)))}
        parts["distance"] = s.beta * self._likeness(fake, wanted)
        loss = torch.stack(list(parts.values())).sum()
        norm = self._update((self._adams["G"], self._sgd), loss)
        if self._passed < 0:
            self._passed.fill_(sum(number >= mark for mark in self._marks))
        passed, before = sum(number + 1 >= mark for mark in self._marks), int(self._passed)
        amount = self._close(number, s.scale_rate * factor, met=before < passed == FITTED)
        if self._grids is not None and passed > before:
            self._fit(self._grids)
        self._passed.fill_(max(passed, before))
        self.judge.requires_grad_(True)
        draws = self._share.draws(self._seed, f"{self.name}/pool", number)
        shown = self._pool.exchange(fake.detach(), draws)
        with autocast(self._precision, device):
            says_real, says_fake = self.judge(self._seen(x, wanted)), self.judge(self._seen(x, shown))
        loss_d = discriminator_loss(s.loss, says_real, says_fake)
        self._update((self._adams["D"],), loss_d)
        widths = self.widths()
        return {
            "loss_g": loss.item(),
            **{f"loss_{name}": value.item() for name, value in parts.items()},
            "loss_d": loss_d.item(),
            "scales_l1": float(sum(scale.detach().abs().sum().item() for scale in self.scales.values())),
            "gradient_norm_scales": norm,
            "rho": amount / (s.scale_rate * factor),
            "macs_fraction": self.steering.fraction(self.scales),
            "budget": self._budget,
            "open_channels": sum(widths.values()),
            "widths": widths,
            "learning_rate": s.learning_rate * factor,
            "scale_rate": s.scale_rate * factor,
        }

    def _close(self, number: int, rate: float, *, met: bool) -> float:
        """Do the proximal step, note which channels it closed, and return what it took from every scale.

        Args:
            number, rate: of the step, and the scales' learning rate in it.
            met: whether the budget is met in this step.
        """
        fixed = self.settings.rho
        amount = fixed * rate if fixed else self.steering.amount(number, self.scales)
        for name, scale in self.scales.items():
            if shrink(scale.data, amount, self._minimum[name]) and fixed:
                raise TrainingError(
                    f"step {number} of stage '{self.name}': with gan_slimming.rho={fixed:g}, no channel of group "
                    f"'{name}' would be left, and it must keep one",
                    hint="lower --set gan_slimming.rho=, or leave it at 0: then it is chosen so that the budget is met",
                    setting="gan_slimming.rho",
                )
            closed, since = scale.data == 0, self.since[name]
            since[~closed] = float(self.steps)
            since[closed & (since == self.steps)] = float(number)
            if self.settings.give_back and not fixed and met:
                give_back(scale.data, self.first_scales[name])
        return amount

    def _fit(self, grids: Grids) -> None:
        """Give the student the grids that fit it as it is: with closed channels, and scales of another size."""
        scales = {name: scale.detach() for name, scale in self.scales.items()}
        plain = without_quantization(fold_scales(self.student, scales))
        set_grids(self.student, grids(plain), self._processes)

    def widths(self) -> dict[str, int]:
        """Return how many channels of every group with scales are open."""
        return {name: int((scale.detach() != 0).sum()) for name, scale in self.scales.items()}

    def _seen(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], dim=1) if self._conditional else y

    def _update(self, optimizers: tuple[torch.optim.Optimizer, ...], loss: Tensor) -> float:
        """Update what the optimizers hold; return the norm of the scales' gradient before clipping, 0 without them."""
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._processes.mean_gradients(parameter for group in groups for parameter in group["params"])
        norm = 0.0
        if self._sgd in optimizers:
            norm = torch.nn.utils.clip_grad_norm_(self.scales.values(), self.settings.clip).item()
        for optimizer in optimizers:
            optimizer.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return weights, scales, when channels closed, which marks are passed, moments, and the pool."""
        tensors = named("G", self.student.state_dict()) | named("D", self.judge.state_dict())
        tensors |= named("scale", {name: scale.detach() for name, scale in self.scales.items()})
        tensors |= named("since", self.since) | named("pool", self._pool.state())
        tensors["passed"] = self._passed
        for name, optimizer in (*self._adams.items(), ("scales", self._sgd)):
            tensors |= named("optimizer", optimizer_tensors(name, optimizer))
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.student.load_state_dict(part(tensors, "G"))
        self.judge.load_state_dict(part(tensors, "D"))
        scales, since = part(tensors, "scale"), part(tensors, "since")
        for name, scale in self.scales.items():
            if scales[name].shape != scale.shape or since[name].shape != scale.shape:
                raise ValueError(f"the scales of '{name}' are of another shape")
            scale.data.copy_(scales[name])
            self.since[name].copy_(since[name])
        self._pool.load_state(part(tensors, "pool"))
        if "passed" in tensors:  # states of before have none
            self._passed.copy_(tensors["passed"])
        for name, optimizer in (*self._adams.items(), ("scales", self._sgd)):
            load_optimizer(f"optimizer.{name}", optimizer, tensors)


def _groups(network: Network, ranges: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return what is trained of a network: everything decays but the ranges of activations, which would shrink."""
    fixed = {id(parameter) for parameter in ranges}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decaying = [parameter for parameter in trained if id(parameter) not in fixed]
    others = [parameter for parameter in trained if id(parameter) in fixed]
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return groups[: 2 if others else 1]
