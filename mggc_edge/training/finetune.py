"""Finetuning of a slim pair: the original objective, and distillation from the frozen original."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.errors import SettingError
from mggc_edge.models.convert import without_quantization
from mggc_edge.models.network import Network
from mggc_edge.training.bank import Ahead, PictureSet, Pixels, to_tensor, views
from mggc_edge.training.distill import Distiller, DistillSettings
from mggc_edge.training.losses import GanLoss, discriminator_loss, generator_loss
from mggc_edge.training.material import Material
from mggc_edge.training.order import Share, step_seed, steps_of
from mggc_edge.training.pool import PicturePool
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.quantize import Grids, range_parameters, set_grids
from mggc_edge.training.schedule import constant_then_linear, set_rate
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part

VALIDATION_BATCH = 8


@dataclass(frozen=True)
class FinetuneSettings:
    """How a slim pair is finetuned.

    Attributes:
        batch_size: pictures that a step of each process sees.
        lambda_l1: weight of the L1 distance to the truth (paired).
        lambda_cycle, lambda_identity: as in `CycleGanSettings` (unpaired, with a partner).
        judge_rate: learning rate of the discriminator, as a part of `learning_rate`.
        gan_weight: of the adversarial loss; 0 leaves it out. Without target pictures the original's outputs are what
            the discriminator takes for real, as in GAN Slimming.
        checks: how often, over the whole stage, the held-out pictures are looked at.
        floats: part of the steps, in [0, 1), in which a student on 8-bit grids is trained in floats. Then it gets the
            grids that fit it, and what was best before them no longer counts.
    """

    distill: DistillSettings
    epochs: float = 100
    batch_size: int = 1
    learning_rate: float = 1e-3
    judge_rate: float = 1.0
    beta_1: float = 0.5
    decay: float = 0.5
    gan: GanLoss = "lsgan"
    gan_weight: float = 1.0
    lambda_l1: float = 100.0
    lambda_cycle: float = 10.0
    lambda_identity: float = 0.5
    pool: int = 50
    flip: bool = True
    checks: int = 20
    floats: float = 0.0


@dataclass(frozen=True)
class Cast:
    """The networks that take part. All but the slim pair are frozen.

    Attributes:
        student, judge: the slim generator, and the discriminator that it plays against (None: no adversarial loss).
        teacher, teacher_judge: the original, and its discriminator as it was, for distillation.
        partner: the generator of the other direction, for cycle and identity losses.
    """

    student: Network
    judge: Network | None
    teacher: Network
    teacher_judge: Network | None
    partner: Network | None = None


class Finetune:
    """A stage that trains a slim generator and the discriminator against it, and remembers the best it saw.

    That is the one whose outputs on the held-out pictures are nearest to the original's, in what the original's
    discriminator sees in them; without a discriminator, the one with the highest PSNR.

    Args:
        grids: finds the grids of a student that is trained in floats at first (`FinetuneSettings.floats`).
    """

    name = "finetune"

    def __init__(
        self,
        cast: Cast,
        material: Material,
        settings: FinetuneSettings,
        *,
        seed: int,
        precision: Precision,
        grids: Grids | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._cast, self._material, self.settings = cast, material, settings
        self._seed, self._precision = seed, precision
        self._size = cast.teacher.table.image_size
        self._paired = material.objective == "paired"
        self.student = cast.student.train()
        self._plain = without_quantization(self.student, shared=True)
        self.judge = cast.judge.train() if cast.judge is not None and settings.gan_weight > 0 else None
        self._imitates = material.objective == "distill" and self.judge is not None
        self._check_loss()
        for frozen in (cast.teacher, cast.teacher_judge, cast.partner):
            if frozen is not None:
                frozen.eval().requires_grad_(False)
        conditional = cast.teacher_judge is not None and cast.teacher_judge.spec.in_channels != (
            cast.teacher.spec.out_channels
        )
        self._conditional = self.judge is not None and self.judge.spec.in_channels != cast.teacher.spec.out_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(seed, f"{self.name}/maps", 0))
            self._distiller = Distiller(
                cast.teacher, cast.student, cast.teacher_judge, settings.distill, conditional=conditional
            ).to(processes.device)
        self._processes = processes
        self._share = Share(settings.batch_size, processes.rank, processes.size)
        self.steps = steps_of(settings.epochs, len(material.source), self._share.total)
        self._every = max(1, self.steps // settings.checks)
        self._grids, floats = grids, 0 if grids is None else round(settings.floats * self.steps)
        self._on_grids = min(floats, self.steps - 1)  # the step from which on the student lies on them
        self._fitted = not self._on_grids
        betas = (settings.beta_1, 0.999)
        own = [*self.student.parameters(), *self._distiller.parameters()]
        own = [parameter for parameter in own if parameter.requires_grad]  # ranges of activations may be fixed
        self._optimizers = {"G": torch.optim.Adam(own, settings.learning_rate, betas=betas, fused=True)}
        if self.judge is not None:
            self._optimizers["D"] = torch.optim.Adam(
                self.judge.parameters(), settings.learning_rate * settings.judge_rate, betas=betas, fused=True
            )
        self._pool = PicturePool(0 if self._paired else settings.pool)
        self._batches = Ahead(self._batch, self.steps)
        self._best: dict[str, Tensor] = {}
        self.best_look: dict[str, float] = {}
        self._wanted: list[Tensor] = []

    def _check_loss(self) -> None:
        """Raise SettingError where nothing is left to learn from."""
        s = self.settings
        cycles = self._material.objective == "unpaired" and self._cast.partner is not None and s.lambda_cycle > 0
        if not (s.distill.enabled or self.judge is not None or self._paired or cycles):
            raise SettingError(
                "every part of the finetuning loss has weight 0",
                hint="leave distill.enabled on, or give distill.content, distill.style, distill.pixels or "
                "finetune.gan_weight a weight",
            )

    def _batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        material, name = self._material, self.name
        sources, targets = material.source_views, material.target_views
        numbers = self._share.pictures(self._seed, name, step, len(sources))
        if self._paired:
            assert targets is not None
            crops = self._views([sources, targets], numbers, f"{name}/views", step)
            x, y = (
                to_tensor(side, s.format) for side, s in zip(zip(*crops, strict=True), (sources, targets), strict=True)
            )
            return x, y
        x = to_tensor([view for (view,) in self._views([sources], numbers, f"{name}/views", step)], sources.format)
        if targets is None or (self.judge is None and self._cast.partner is None):  # nobody would look at one
            return x, None
        others = self._share.pictures(self._seed, f"{name}/targets", step, len(targets))
        crops = self._views([targets], others, f"{name}/targets/views", step)
        return x, to_tensor([view for (view,) in crops], targets.format)

    def _views(self, sets: Sequence[PictureSet], numbers: Sequence[int], name: str, step: int) -> list[list[Pixels]]:
        """Return the same random crop of every set, for each of the pictures."""
        draws = self._share.draws(self._seed, name, step)
        return [
            views(sets, number, self._size, rng, flip=self.settings.flip)
            for number, rng in zip(numbers, draws, strict=True)
        ]

    def step(self, number: int) -> dict[str, Any]:
        """Update the generator, then the discriminator; now and then look at the held-out pictures."""
        s = self.settings
        if self._grids is not None and not self._fitted and number >= self._on_grids:
            self._fit(self._grids)
        rate = s.learning_rate * constant_then_linear(number, self.steps, s.decay)
        for name, optimizer in self._optimizers.items():
            set_rate(optimizer, rate * s.judge_rate if name == "D" else rate)
        device = self._processes.device
        x, y = (None if pictures is None else pictures.to(device) for pictures in self._batches.get(number))
        assert x is not None
        fake, parts, real = self._losses(x, y)
        loss = torch.stack(list(parts.values())).sum()
        self._update("G", loss)
        metrics: dict[str, Any] = {
            "loss_g": loss.item(),
            **{f"loss_{name}": value.item() for name, value in parts.items()},
        }
        if self.judge is not None and real is not None:
            self.judge.requires_grad_(True)
            draws = self._share.draws(self._seed, f"{self.name}/pool", number)
            shown = fake.detach() if self._paired else self._pool.exchange(fake.detach(), draws)
            with autocast(self._precision, device):
                says_real, says_fake = self.judge(self._seen(x, real)), self.judge(self._seen(x, shown))
            loss_d = discriminator_loss(s.gan, says_real, says_fake)
            self._update("D", loss_d)
            metrics["loss_d"] = loss_d.item()
        metrics["learning_rate"] = rate
        if self._processes.first and ((number + 1) % self._every == 0 or number + 1 == self.steps):
            metrics["held_out"] = self._check()
        return metrics

    @property
    def _running(self) -> Network:
        """What is trained now: the student on its grids, or until they are fitted its weights in floats."""
        return self.student if self._fitted else self._plain

    def _fit(self, grids: Grids) -> None:
        """Put the student on the grids that fit it now; the best is looked for among networks on grids alone."""
        set_grids(self.student, grids(self._plain), self._processes)
        self._fitted, self._best, self.best_look = True, {}, {}
        if self._processes.first:
            self._check()

    def _losses(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Return the generator's output, the parts of its loss, and what its discriminator takes for real."""
        s, cast = self.settings, self._cast
        parts: dict[str, Tensor] = {}
        with autocast(self._precision, x.device):
            lesson = self._distiller.teach(x) if s.distill.enabled or self._imitates else None
            fake, features = self._running.features(x, self._distiller.student_taps)
            fake = fake.float()
            if lesson is not None and s.distill.enabled:
                parts |= self._distiller(lesson, x, fake, features)
            if self.judge is not None:
                self.judge.requires_grad_(False)
                parts["gan"] = s.gan_weight * generator_loss(s.gan, self.judge(self._seen(x, fake)))
            if y is not None and cast.partner is not None and not self._paired:
                parts |= self._cycles(x, y, fake, cast.partner)
        if self._paired and y is not None:
            parts["l1"] = s.lambda_l1 * F.l1_loss(fake, y)
        return fake, parts, lesson[0].float() if lesson is not None and self._imitates else y

    def _cycles(self, x: Tensor, y: Tensor, fake: Tensor, partner: Network) -> dict[str, Tensor]:
        """Cycle and identity losses of CycleGAN, with the frozen partner as the other direction."""
        s = self.settings
        parts: dict[str, Tensor] = {}
        if s.lambda_cycle:
            with torch.no_grad():
                other = partner(y)
            there, back = F.l1_loss(partner(fake).float(), x), F.l1_loss(self._running(other).float(), y)
            parts["cycle"] = s.lambda_cycle * (there + back)
        if s.lambda_cycle and s.lambda_identity and x.shape == y.shape:
            parts["identity"] = s.lambda_cycle * s.lambda_identity * F.l1_loss(self._running(y).float(), y)
        return parts

    def _seen(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], dim=1) if self._conditional else y

    def _update(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer = self._optimizers[name]
        self._processes.mean_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])
        optimizer.step()

    def look(self) -> dict[str, float]:
        """Compare the generator, as it is, with the original on the held-out pictures; see `held_out_distance`."""
        self._wanted = self._wanted or list(_held_out_lessons(self._distiller, self._material, self._processes.device))
        return held_out_distance(self._running, self._distiller, self._material, self._wanted)

    def begin(self) -> dict[str, float]:
        """Look at the generator as it is given, which is the best until there is a better one."""
        return self._check() if not self._best else dict(self.best_look)

    def _check(self) -> dict[str, float]:
        """Look, and keep the weights if none were better."""
        found = self.look()
        if not self._best or found["distance"] < self.best_look["distance"]:
            self.best_look = found
            self._best = {name: value.clone() for name, value in self.student.state_dict().items()}
        return found

    def best(self) -> Network:
        """Return the generator that was best on the held-out pictures, on the CPU and in evaluation mode."""
        tensors = {key: self._best[key].cpu() for key in self.student.table.tensors}
        return Network.from_tensors(self.student.spec, self.student.table, tensors).eval()

    def state(self) -> dict[str, Tensor]:
        """Return weights, moments, the pool, and the best weights so far."""
        tensors = named("G", self.student.state_dict()) | named("maps", self._distiller.maps.state_dict())
        tensors |= named("best", self._best) | named("pool", self._pool.state())
        look = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.best_look.items()}
        tensors |= named("look", look) | {"fitted": torch.tensor([self._fitted])}
        if self.judge is not None:
            tensors |= named("D", self.judge.state_dict())
        for name, optimizer in self._optimizers.items():
            tensors |= named("optimizer", optimizer_tensors(name, optimizer))
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.student.load_state_dict(part(tensors, "G"))
        self._distiller.maps.load_state_dict(part(tensors, "maps"))
        self._best = part(tensors, "best")
        self.best_look = {name: value.item() for name, value in part(tensors, "look").items()}
        self._pool.load_state(part(tensors, "pool"))
        self._fitted = bool(tensors["fitted"].item())
        if self.judge is not None:
            self.judge.load_state_dict(part(tensors, "D"))
        for name, optimizer in self._optimizers.items():
            load_optimizer(f"optimizer.{name}", optimizer, tensors, late=range_parameters(self.student))


def _parts(count: int) -> Iterator[range]:
    for start in range(0, count, VALIDATION_BATCH):
        yield range(start, min(start + VALIDATION_BATCH, count))


def _held_out_lessons(distiller: Distiller, material: Material, device: torch.device) -> Iterator[Tensor]:
    """Yield the original's outputs on the held-out pictures, batch by batch."""
    for numbers in _parts(len(material.held_out)):
        yield distiller.teach(material.held_out.batch(numbers).to(device))[0].float()


@torch.no_grad()
def held_out_distance(
    student: Network, distiller: Distiller, material: Material, lessons: Sequence[Tensor]
) -> dict[str, float]:
    """Return how far a generator's outputs are from the original's, `lessons`, on the held-out pictures.

    "distance": mean squared difference of the features that the original's discriminator sees, each relative to the
    mean square of the original's; without a discriminator, of the pixels. "psnr": over all pictures, in dB.
    "l1_truth": mean absolute distance to the truth, where there is one, in the values of the pictures.
    """
    training = student.training
    student.eval()
    distance, squared, truth, count = 0.0, 0.0, 0.0, len(material.held_out)
    for numbers, wanted in zip(_parts(count), lessons, strict=True):
        x = material.held_out.batch(numbers).to(wanted.device)
        y = student(x).float()
        weight = len(numbers) / count
        error = F.mse_loss(y, wanted).item()
        squared += weight * error
        pairs = [*zip(distiller.judged(x, y), distiller.judged(x, wanted), strict=True)]
        near = [(F.mse_loss(a, b) / b.square().mean().clamp_min(1e-12)).item() for a, b in pairs]
        distance += weight * (sum(near) / len(near) if near else error)
        if material.held_out_truth is not None:
            truth += weight * F.l1_loss(y, material.held_out_truth.batch(numbers).to(y.device)).item()
    student.train(training)
    # Of pictures from -1 to 1 the square of the range is 4. Equal pictures: a large number.
    psnr = 10 * math.log10(student.spec.value_range**2 / squared) if squared else 100.0
    found = {"distance": distance, "psnr": psnr}
    return found | ({"l1_truth": truth} if material.held_out_truth is not None else {})
