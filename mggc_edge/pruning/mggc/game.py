"""The game of MGGC: two agents choose the channels of a frozen generator and a frozen discriminator (eq. 2).

Every step draws an architecture v_G and v_D of both networks and one real picture y'' from the centre's neighborhood:

    L_D = discriminator loss of D(y''; v_D) and D(G(x; v_G); v_D) + lambda_2 * mean(v_D)
    L_G = generator loss of D(G(x; v_G); v_D)                     + lambda_1 * R(v_G)

L_D is minimised by D's agent alone and L_G by G's. The weights are never touched: what is learnt is who stays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mggc_edge.errors import InputError, SettingError, SpecError
from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.network import Network
from mggc_edge.pruning.cost import GatedCost, budget_penalty
from mggc_edge.pruning.gates import sample_groups
from mggc_edge.pruning.mggc.agents import Agent, agent_optimizer, make_agent
from mggc_edge.pruning.mggc.neighborhoods import draw_neighbors
from mggc_edge.pruning.mggc.settings import GameSettings
from mggc_edge.training.bank import Bank
from mggc_edge.training.losses import discriminator_loss, generator_loss
from mggc_edge.training.order import Share, step_seed
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part

PASSES = 50  # without noise, until both agents agree on the final logits


class Game:
    """A stage that trains both agents. The networks that are given survive: it plays on copies.

    Args:
        generator: the original G; its table's picture size is the one MACs are counted at.
        discriminator: a trained D for it: of pictures, or of an input and a picture together.
        inputs: x_i.
        outputs: y'_i = G(x_i), as many.
        neighbors: int64 [n, k] as from `neighborhoods`.
        budget: fraction of the original's MACs, in (0, 1].
        convention: which MACs.
        settings: of the method.
        seed, steps, batch_size: one architecture a step is shared by the pictures of its batch, of all processes.
        precision: of the two networks; agents, gates and costs are in float32 and float64.
        processes: that play together, each with as many pictures a step.

    Raises:
        SpecError: the discriminator does not take what the generator gives.
        InputError: inputs, outputs and neighborhoods are not of the same number of pictures.
        SettingError: the budget is no fraction.
    """

    name = "prune"

    def __init__(
        self,
        generator: Network,
        discriminator: Network,
        inputs: Bank,
        outputs: Bank,
        neighbors: Tensor,
        *,
        budget: float,
        convention: MacsConvention = "true",
        settings: GameSettings | None = None,
        seed: int,
        steps: int,
        batch_size: int = 1,
        precision: Precision = "fp32",
        processes: Processes = ALONE,
    ) -> None:
        self.settings, self.steps = settings or GameSettings(), steps
        self._conditional = _is_conditional(generator, discriminator)
        if not len(inputs) == len(outputs) == len(neighbors) > 0:
            raise InputError(
                f"the game needs as many inputs as outputs and neighborhoods, not {len(inputs)}, {len(outputs)} and "
                f"{len(neighbors)}"
            )
        if not 0 < budget <= 1:
            raise SettingError(f"a budget is a fraction above 0 and up to 1, not {budget:g}")
        self._inputs, self._outputs, self._neighbors = inputs, outputs, neighbors
        self._budget, self._seed, self._precision = budget, seed, precision
        self._processes, self._share = processes, Share(batch_size, processes.rank, processes.size)
        self._device = next(generator.parameters()).device
        self._generator, self._discriminator = _frozen(generator), _frozen(discriminator)
        self._cost = GatedCost(generator.table, convention, self._device)
        self.generator_agent = self._new_agent(generator, "generator")
        self.discriminator_agent: Agent | None = None
        if self.settings.prune_discriminator:
            self.discriminator_agent = self._new_agent(discriminator, "discriminator")
        self._optimizers = {
            name: agent_optimizer(agent, self.settings.learning_rate, self.settings.weight_decay)
            for name, agent in self._agents().items()
        }
        self._h = torch.zeros(self.generator_agent.embedding_shape, device=self._device)  # h_G of the step before
        self._silence = torch.zeros_like(self._h)  # what G's agent hears where D has none

    def _new_agent(self, network: Network, name: str) -> Agent:
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(self._seed, f"{self.name}/{name}", 0))
            agent = make_agent(settings.agent, network.table, offset=settings.offset, feedback=settings.feedback)
        return agent.to(self._device)

    def _agents(self) -> dict[str, Agent]:
        agents = {"generator": self.generator_agent}
        if self.discriminator_agent is not None:
            agents["discriminator"] = self.discriminator_agent
        return agents

    def step(self, number: int) -> dict[str, Any]:
        """Let both agents choose, see how the networks do, and update both agents.

        D(G(x)) is computed once: each loss is differentiated with respect to its own agent's parameters alone.
        """
        settings = self.settings
        centers = self._share.pictures(self._seed, self.name, number, len(self._inputs))
        draws = self._share.draws(self._seed, f"{self.name}/neighbors", number)
        others = draw_neighbors(self._neighbors, centers, draws)
        x, real = self._inputs.batch(centers).to(self._device), self._outputs.batch(others).to(self._device)
        real_x = x
        if self._conditional and settings.pairing == "neighbor":
            real_x = self._inputs.batch(others).to(self._device)

        gates_d, gates_g, h_g = self._choose()
        with autocast(self._precision, self._device):
            fake = self._generator(x, gates_g, "batch")
            says_fake = self._discriminator(self._judged(x, fake), gates_d, "batch")
            with torch.set_grad_enabled(bool(gates_d)):
                says_real = self._discriminator(self._judged(real_x, real), gates_d, "batch")
        loss_d = discriminator_loss(settings.loss, says_real, says_fake)
        kept_d = torch.cat(list(gates_d.values())).mean() if gates_d else loss_d.new_ones(())
        loss_d = loss_d + settings.lambda_2 * kept_d
        fraction = self._cost.fraction(gates_g)
        penalty = budget_penalty(fraction, self._budget, settings.regularizer)
        loss_g = generator_loss(settings.loss, says_fake) + settings.lambda_1 * penalty

        norms = {"gradient_norm_d": 0.0}
        if self.discriminator_agent is not None:
            norms["gradient_norm_d"] = self._differentiate("discriminator", loss_d, keep_graph=True)
        norms["gradient_norm_g"] = self._differentiate("generator", loss_g)
        for optimizer in self._optimizers.values():
            optimizer.step()
        self._h = h_g
        return {
            "loss_g": loss_g.item(),
            "loss_d": loss_d.item(),
            "regularizer": penalty.item(),
            "macs_fraction": fraction.item(),
            "budget": self._budget,
            "discriminator_kept": kept_d.item(),
            **norms,
            "temperature": settings.temperature,
            "learning_rate": settings.learning_rate,
            "widths": _open_counts(gates_g),
            "discriminator_widths": _open_counts(gates_d),
        }

    def _choose(self) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Return the gates of D and of G, and h_G. D's agent hears the h_G of the last step, then G's the new h_D.

        Every process draws the same gates: the noise is that of rank 0.
        """
        settings, share = self.settings, self._processes.broadcast
        gates_d: dict[str, Tensor] = {}
        h_d = self._silence
        if self.discriminator_agent is not None:
            logits, h_d = self.discriminator_agent(self._h)
            table = self._discriminator.table
            gates_d = sample_groups(table, logits, settings.temperature, settings.noise, share=share)
        logits, h_g = self.generator_agent(h_d.detach())
        table = self._generator.table
        gates_g = sample_groups(table, logits, settings.temperature, settings.noise, share=share)
        return gates_d, gates_g, h_g.detach()

    def _judged(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y.to(x.dtype)], dim=1) if self._conditional else y

    def _differentiate(self, name: str, loss: Tensor, *, keep_graph: bool = False) -> float:
        """Give one agent the gradient of its loss, clipped; return its norm before that."""
        parameters = list(self._agents()[name].parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=keep_graph)
        self._processes.mean(gradients)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip).item()

    @torch.no_grad()
    def logits(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Return the final logits of the generator and of the discriminator, per group one for every channel.

        No draw takes part: the agents hear each other in turns, at most 50 times, until nothing changes any more. A
        discriminator that is not pruned has none.
        """
        h, found_d = self._h, dict[str, Tensor]()
        for _ in range(PASSES):
            h_d = self._silence
            if self.discriminator_agent is not None:
                found_d, h_d = self.discriminator_agent(h)
            found_g, after = self.generator_agent(h_d)
            if torch.equal(after, h):
                break
            h = after
        return _by_group(self._generator, found_g), _by_group(self._discriminator, found_d)

    def state(self) -> dict[str, Tensor]:
        """Return the agents, their moments, and h_G."""
        tensors = {"h": self._h}
        for name, agent in self._agents().items():
            tensors |= named(name, agent.state_dict())
            tensors |= optimizer_tensors(f"optimizer.{name}", self._optimizers[name])
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, agent in self._agents().items():
            agent.load_state_dict(part(tensors, name))
            load_optimizer(f"optimizer.{name}", self._optimizers[name], tensors)
        if tensors["h"].shape != self._h.shape:
            raise ValueError(f"the embedding has the shape {list(tensors['h'].shape)}, not {list(self._h.shape)}")
        self._h = tensors["h"].to(self._device, copy=True)


def _is_conditional(generator: Network, discriminator: Network) -> bool:
    """Whether the discriminator judges an input and a picture together; raises SpecError where it can judge neither."""
    takes, gives = discriminator.spec.in_channels, generator.spec.out_channels
    together = generator.spec.in_channels + gives
    if takes not in (gives, together):
        raise SpecError(
            f"the discriminator takes {takes} channels, but the generator's pictures have {gives}",
            hint=f"a discriminator for it takes {gives}, or {together} where it also sees the input",
        )
    return takes == together


def _frozen(network: Network) -> Network:
    """Return a copy without gradients of its own, in training mode: dropout acts where the architecture has it.

    Batch norm by the batch's statistics is asked for in each call, which touches no buffer.
    """
    return copy.deepcopy(network).requires_grad_(False).train()


def _open_counts(gates: Mapping[str, Tensor]) -> dict[str, int]:
    if not gates:
        return {}
    counts = torch.stack([gate.detach().sum() for gate in gates.values()]).tolist()
    return {name: int(count) for name, count in zip(gates, counts, strict=True)}


def _by_group(network: Network, logits: Mapping[str, Tensor]) -> dict[str, list[float]]:
    if not logits:
        return {}
    return {group.name: logits[group.name].tolist() if group.name in logits else [] for group in network.table.groups}
