"""PruningPlan: which channels of every group stay, by what criterion, and what that costs. A JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mggc_edge.errors import PlanError, SpecError
from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.spec import NetworkSpec

SCHEMA = "mggc-edge/plan/1"
MAX_PLAN_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PruningPlan:
    """The channels of every group that stay, so that they can be read, compared and applied later.

    Attributes:
        spec: the network that the plan was made for.
        kept: per group, rising channel numbers.
        scores: per group, one number for each channel, higher stays; empty where the criterion gives none.
        criterion: the method, such as "random" or "mggc".
        seed: of the method's random numbers.
        budget: the fraction of the original's MACs that was asked for.
        budget_met: the fraction that the plan keeps.
        convention: which MACs the two are fractions of.
        image_size: (height, width) at which MACs were counted.
        source_sha256: hash of the original's spec and weights (`weights_sha256`), None where it was not known.
    """

    spec: NetworkSpec
    kept: Mapping[str, tuple[int, ...]]
    scores: Mapping[str, tuple[float, ...]]
    criterion: str
    seed: int
    budget: float
    budget_met: float
    convention: MacsConvention
    image_size: tuple[int, int]
    source_sha256: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise PlanError(f"a budget is a fraction above 0 and up to 1, not {self.budget:g}")
        if self.convention not in get_args(MacsConvention):
            raise PlanError(f"the MACs convention must be 'true' or 'paper', not {self.convention!r}")
        if not 0 < self.budget_met <= 1:
            raise PlanError(f"a plan keeps a fraction above 0 and up to 1 of the MACs, not {self.budget_met:g}")
        slim_spec(self.spec, self.kept)
        for group, scores in self.scores.items():
            if len(scores) != self.spec.width(group):
                raise PlanError(f"group '{group}' has {self.spec.width(group)} channels, but {len(scores)} scores")
            if not all(map(math.isfinite, scores)):
                raise PlanError(f"group '{group}' has a score that is no finite number")

    def check_fits(self, spec: NetworkSpec) -> None:
        """Raise PlanError unless the plan was made for a network with this spec."""
        if replace(spec, dropout=self.spec.dropout) != self.spec:  # dropout leaves no trace in some checkpoints
            raise PlanError(
                f"the plan was made for another network ({self.spec.family} with widths "
                f"{_widths(self.spec)}, not {spec.family} with {_widths(spec)})",
                hint="apply it to the checkpoint that it was made from",
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return {
            "schema": SCHEMA,
            "criterion": self.criterion,
            "seed": self.seed,
            "budget": self.budget,
            "budget_met": self.budget_met,
            "convention": self.convention,
            "image_size": list(self.image_size),
            "source_sha256": self.source_sha256,
            "spec": self.spec.to_json(),
            "kept": {group: list(indices) for group, indices in self.kept.items()},
            "scores": {group: list(scores) for group, scores in self.scores.items()},
        }

    @classmethod
    def from_json(cls, document: object) -> PruningPlan:
        """Rebuild a plan from `to_json`'s object.

        Raises:
            PlanError: the object is not one, or has missing or impossible fields.
        """
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise PlanError(f"this is no pruning plan: its schema is not '{SCHEMA}'")
        try:
            height, width = document["image_size"]
            return cls(
                spec=NetworkSpec.from_json(document["spec"]),
                kept={str(group): tuple(map(_index, kept)) for group, kept in document["kept"].items()},
                scores={str(group): tuple(map(float, scores)) for group, scores in document["scores"].items()},
                criterion=str(document["criterion"]),
                seed=int(document["seed"]),
                budget=float(document["budget"]),
                budget_met=float(document["budget_met"]),
                convention=document["convention"],
                image_size=(int(height), int(width)),
                source_sha256=document["source_sha256"],
            )
        except SpecError as error:
            raise PlanError(f"this pruning plan is damaged: {error.message}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PlanError(
                f"this pruning plan is damaged: a field is missing or of the wrong type ({error})"
            ) from error


def _index(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no channel number")
    return value


def _widths(spec: NetworkSpec) -> str:
    widths = [str(width) for _, width in spec.widths]
    return "/".join(widths[:4]) + ("/..." if len(widths) > 4 else "")


def read_plan(path: Path) -> PruningPlan:
    """Read a plan from a JSON file.

    Raises:
        PlanError: there is none, or it is damaged or of another kind.
    """
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise PlanError(f"'{path}' is too large for a pruning plan")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlanError(f"there is no plan '{path}'") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"'{path}' is no pruning plan: {error}") from error
    return PruningPlan.from_json(document)
