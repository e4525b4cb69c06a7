"""The agents of MGGC: small recurrent networks that say, for every channel of a network, how much it shall stay.

An agent walks over the channel groups in execution order with a bidirectional GRU. Its outputs h, one row a group, are
what it says about the whole network; the other agent sees their mean, so that generator and discriminator are pruned
in view of each other.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.models.layers import ChannelGroup, LayerTable
from mggc_edge.training.optimizers import decaying_adamw

AgentKind = Literal["gru", "free"]
INPUT_SIZE = 64
HIDDEN_SIZE = 128
EMBEDDING_SIZE = 2 * HIDDEN_SIZE  # both directions
# A step of Adam moves a logit of the GRU agent by the sum of its head's 256 weights' steps, each times a value after
# ReLU, on average 0.4: by about 100 times the learning rate. A logit that is a parameter needs that rate to go as fast.
FREE_RATE_FACTOR = 100.0


class GruAgent(nn.Module):
    """gen_G or gen_D: logits of every channel group from frozen inputs, a GRU and one head a group.

    The input of a group is its row of a frozen orthogonal matrix. With `feedback`, every group's input has a linear
    function of the other agent's h added, which is zero at first. The head of a group is
    Linear(ReLU(LayerNorm(h))) + offset.

    Args:
        table: the network's layer table; groups of width 0 have no logits.
        offset: added to every logit: at 3, most gates are open at the start.
        feedback: whether the other agent is listened to.
    """

    inputs: Tensor

    def __init__(self, table: LayerTable, *, offset: float = 3.0, feedback: bool = True) -> None:
        super().__init__()
        groups = gated_groups(table)
        self.names = tuple(group.name for group in groups)
        self.offset = offset
        self.register_buffer("inputs", nn.init.orthogonal_(torch.empty(len(groups), INPUT_SIZE)))
        self.gru = nn.GRU(INPUT_SIZE, HIDDEN_SIZE, bidirectional=True)
        self.norm = nn.LayerNorm(EMBEDDING_SIZE)
        self.heads = nn.ModuleList(nn.Linear(EMBEDDING_SIZE, group.size, bias=False) for group in groups)
        self.peer: nn.Linear | None = None
        if feedback:
            self.peer = nn.Linear(EMBEDDING_SIZE, INPUT_SIZE)
            nn.init.zeros_(self.peer.weight)
            nn.init.zeros_(self.peer.bias)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """The shape of h: [groups, 256]."""
        return (len(self.names), EMBEDDING_SIZE)

    def forward(self, peer: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the logits, [C] per group, and h, [groups, 256], given the other agent's h."""
        inputs = self.inputs
        if self.peer is not None:
            inputs = inputs + self.peer(peer.mean(dim=0))
        h: Tensor = self.gru(inputs)[0]
        rows = F.relu(self.norm(h)).unbind(0)
        logits = {name: head(row) + self.offset for name, head, row in zip(self.names, self.heads, rows, strict=True)}
        return logits, h


class FreeAgent(nn.Module):
    """The ablation without an agent: the logits themselves are the parameters. Its h is zero; it sees none."""

    h: Tensor

    def __init__(self, table: LayerTable, *, offset: float = 3.0) -> None:
        super().__init__()
        groups = gated_groups(table)
        self.names = tuple(group.name for group in groups)
        self.logits = nn.ParameterList(torch.full((group.size,), float(offset)) for group in groups)
        self.register_buffer("h", torch.zeros(len(groups), EMBEDDING_SIZE), persistent=False)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """The shape of h: [groups, 256]."""
        return (len(self.names), EMBEDDING_SIZE)

    def forward(self, peer: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # noqa: ARG002  as every agent
        """Return the logits, [C] per group, and h, [groups, 256] of zeros."""
        return dict(zip(self.names, self.logits, strict=True)), self.h


Agent = GruAgent | FreeAgent


def make_agent(kind: AgentKind, table: LayerTable, *, offset: float, feedback: bool) -> Agent:
    """Return a new agent for a network, its weights drawn from torch's global generator."""
    if kind == "free":
        return FreeAgent(table, offset=offset)
    return GruAgent(table, offset=offset, feedback=feedback)


def agent_optimizer(agent: Agent, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW for an agent's parameters; only matrices decay, neither biases nor norms nor free logits."""
    rate = learning_rate * (FREE_RATE_FACTOR if isinstance(agent, FreeAgent) else 1.0)
    return decaying_adamw(agent.parameters(), rate, weight_decay)


def gated_groups(table: LayerTable) -> tuple[ChannelGroup, ...]:
    """Return the channel groups that have a channel to gate."""
    return tuple(group for group in table.groups if group.size)
