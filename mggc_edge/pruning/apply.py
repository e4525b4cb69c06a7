"""Carry out a plan: from a network and the channels that stay to the slim network."""

from __future__ import annotations

from mggc_edge.models.network import Network
from mggc_edge.models.slim import slim
from mggc_edge.pruning.plan import PruningPlan


def apply_plan(network: Network, plan: PruningPlan) -> Network:
    """Return the slim network that `plan` leaves of `network`, which survives.

    Raises:
        PlanError: the plan was made for another network.
    """
    plan.check_fits(network.spec)
    return slim(network, plan.kept)
