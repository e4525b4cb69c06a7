"""PruningPlan: which channels of every group stay, by what criterion, and what that costs. A JSON file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mggc_edge.errors import PlanError, SpecError
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.pruning.align import check_multiple, grid, meet_aligned_budget
from mggc_edge.pruning.budget import kept_macs

SCHEMA = "mggc-edge/plan/1"
MAX_PLAN_BYTES = 64 * 2**20
MAX_CRITERION_LENGTH = 100
BUDGET_MET_TOLERANCE = 1e-6
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


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
        align: the multiple that widths were rounded to, see `mggc_edge.pruning.align`; 1: they were not.

    Raises:
        PlanError: a field has an impossible value, `budget_met` is not what `kept` keeps, or a width is not aligned.
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
    align: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise PlanError(f"a budget is a fraction above 0 and up to 1, not {self.budget:g}")
        if self.convention not in get_args(MacsConvention):
            raise PlanError(f"the MACs convention must be 'true' or 'paper', not {self.convention!r}")
        if not 0 < self.budget_met <= 1:
            raise PlanError(f"a plan keeps a fraction above 0 and up to 1 of the MACs, not {self.budget_met:g}")
        if not isinstance(self.criterion, str) or not 1 <= len(self.criterion) <= MAX_CRITERION_LENGTH:
            raise PlanError(f"the criterion of a plan is a text of 1 to {MAX_CRITERION_LENGTH} characters")
        if not self.criterion.isprintable():
            raise PlanError(f"the criterion of a plan must be printable, not {self.criterion!r}")
        if self.source_sha256 is not None and not (
            isinstance(self.source_sha256, str) and _SHA256.fullmatch(self.source_sha256)
        ):
            raise PlanError("the hash of the weights that a plan was made from has 64 hexadecimal digits")
        slim_spec(self.spec, self.kept)
        self._check_scores()
        self._check_align()
        self._check_budget_met()

    def _check_scores(self) -> None:
        widths = dict(self.spec.widths)
        for group, scores in self.scores.items():
            if group not in widths:
                raise PlanError(f"there are scores for a channel group that the network does not have: '{group}'")
            if len(scores) != widths[group]:
                raise PlanError(f"group '{group}' has {widths[group]} channels, but {len(scores)} scores")
            if not all(map(math.isfinite, scores)):
                raise PlanError(f"group '{group}' has a score that is no finite number")

    def _check_align(self) -> None:
        check_multiple(self.align)
        for group in layer_table(self.spec).groups if self.align > 1 else ():
            if (width := len(self.kept[group.name])) not in grid(group, self.align):
                raise PlanError(
                    f"group '{group.name}' keeps {width} of {group.size} channels, no multiple of {self.align} as the "
                    "plan says"
                )

    def _check_budget_met(self) -> None:
        sides = self.image_size
        if not isinstance(sides, tuple) or len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
            raise PlanError(f"the picture size of a plan is a height and a width in pixels, not {sides!r}")
        try:
            table = layer_table(self.spec, sides)
        except SpecError as error:
            raise PlanError(f"the picture size of the plan does not fit: {error.message}", error.hint) from error
        keeps = kept_macs(table, self.kept, self.convention) / macs(table, self.convention)
        if abs(keeps - self.budget_met) > BUDGET_MET_TOLERANCE:
            raise PlanError(
                f"the plan says it keeps {self.budget_met:.6g} of the MACs, but its channels keep {keeps:.6g}",
                hint="it was changed after it was made; make it anew",
            )

    def check_fits(self, spec: NetworkSpec) -> None:
        """Raise PlanError unless the plan was made for a network with this spec."""
        if replace(spec, dropout=self.spec.dropout) != self.spec:  # dropout leaves no trace in some checkpoints
            raise PlanError(
                f"the plan was made for another network ({self.spec.family} with widths "
                f"{_widths(self.spec)}, not {spec.family} with {_widths(spec)})",
                hint="apply it to the checkpoint that it was made from",
            )

    def aligned(self, multiple: int) -> PruningPlan:
        """Return the plan that the same scores make for the same budget, in widths that are multiples of a number.

        Raises:
            PlanError: the plan has no scores, or the budget cannot be met so.
        """
        table = layer_table(self.spec, self.image_size)
        missing = [group.name for group in table.groups if group.size and group.name not in self.scores]
        if missing:
            raise PlanError(
                f"the plan has no scores for group '{missing[0]}', by which its widths could be rounded",
                hint=f"plans by {self.criterion} cannot be aligned after they were made",
            )
        return self.of_choice(
            table,
            meet_aligned_budget(table, self.scores, self.budget, multiple, self.convention),
            self.scores,
            criterion=self.criterion,
            seed=self.seed,
            budget=self.budget,
            convention=self.convention,
            source_sha256=self.source_sha256,
            align=multiple,
        )

    @classmethod
    def of_choice(
        cls,
        table: LayerTable,
        kept: Mapping[str, tuple[int, ...]],
        scores: Mapping[str, tuple[float, ...]],
        *,
        criterion: str,
        seed: int,
        budget: float | None,
        convention: MacsConvention,
        source_sha256: str | None,
        align: int = 1,
    ) -> PruningPlan:
        """Return the plan of a choice of channels; without a budget, what it keeps is what was asked for."""
        met = kept_macs(table, kept, convention) / macs(table, convention)
        return cls(
            spec=table.spec,
            kept=kept,
            scores=scores,
            criterion=criterion,
            seed=seed,
            budget=met if budget is None else budget,
            budget_met=met,
            convention=convention,
            image_size=table.image_size,
            source_sha256=source_sha256,
            align=align,
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
            "align": self.align,
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
            return cls(
                spec=NetworkSpec.from_json(document["spec"]),
                kept={str(group): tuple(map(_index, kept)) for group, kept in document["kept"].items()},
                scores={str(group): tuple(map(float, scores)) for group, scores in document["scores"].items()},
                criterion=document["criterion"],
                seed=int(document["seed"]),
                budget=float(document["budget"]),
                budget_met=float(document["budget_met"]),
                convention=document["convention"],
                image_size=tuple(document["image_size"]),
                source_sha256=document["source_sha256"],
                align=_index(document.get("align", 1)),  # plans of older versions have none
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
