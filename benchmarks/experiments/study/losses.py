"""The two losses and the budget's penalty over the steps of MGGC's pruning stage, and the gap between the losses."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mggc_edge.errors import ArtifactError

EPSILON = 0.05  # R below it counts as reached: MACs within 5 % of the budget
POINTS = 120  # of a curve that is kept: means of stretches
MAX_LINE_BYTES = 2**20


def pruning_losses(log: Path, *, lambda_1: float, lambda_2: float) -> dict[str, Any] | None:
    """Return the curves and the gap of the pruning stage; None where the log has none.

    The losses are the adversarial parts: L_G - lambda_1 R and L_D - lambda_2 mean(v_D), so that runs of other lambdas
    compare. R is shown as R / log(1 / budget): 1 for the whole network, 0 at the budget. The gap is the mean of
    |L_G - L_D| over the steps after the first one with R < EPSILON.

    Returns:
        JSON: `curves` (`step`, `loss_g`, `loss_d`, `r`: lists of at most POINTS means), `reached` (the first step with
        R < EPSILON, or null), `gap` (null where R never got there, or at the last step only), `steps`.

    Raises:
        ArtifactError: the log is damaged.
    """
    loss_g, loss_d, penalty, shown = [], [], [], []
    with log.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            try:
                record = json.loads(line)
                if record["stage"] != "prune" or "scales_l1" in record:  # which is GAN Slimming's, and no game
                    continue
                r = float(record["regularizer"])
                loss_g.append(float(record["loss_g"]) - lambda_1 * r)
                loss_d.append(float(record["loss_d"]) - lambda_2 * float(record["discriminator_kept"]))
                penalty.append(r)
                shown.append(r / math.log(1 / float(record["budget"])))
            except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
                raise ArtifactError(f"'{log}' is damaged: line {number} is none of a pruning stage") from error
    if not loss_g:
        return None
    reached = next((step for step, r in enumerate(penalty) if r < EPSILON), None)
    after = [] if reached is None else [abs(g - d) for g, d in zip(loss_g, loss_d, strict=True)][reached + 1 :]
    curves = {"loss_g": loss_g, "loss_d": loss_d, "r": shown}
    return {
        "steps": len(loss_g),
        "reached": reached,
        "gap": math.fsum(after) / len(after) if after else None,
        "curves": {
            "step": [round(mean, 1) for mean in stretches(list(range(len(loss_g))))],
            **{name: [float(f"{mean:.4g}") for mean in stretches(values)] for name, values in curves.items()},
        },
    }


def stretches(values: Sequence[float], count: int = POINTS) -> list[float]:
    """Return the means of at most `count` stretches of values, all as long as another within one."""
    count = min(count, len(values))
    ends = [round(number * len(values) / count) for number in range(count + 1)]
    return [math.fsum(values[low:high]) / (high - low) for low, high in itertools.pairwise(ends)]
