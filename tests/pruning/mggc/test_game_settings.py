"""The settings of the game are the paper's by default, but for the penalty, and impossible ones are refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mggc_edge.errors import SettingError
from mggc_edge.pruning.mggc.settings import GameSettings


def test_the_defaults_are_those_of_the_method() -> None:
    assert GameSettings() == GameSettings(
        k=5, lambda_1=3, lambda_2=0.1, temperature=0.4, offset=3, noise="gumbel_paper", regularizer="two_sided",
        loss="lsgan", pairing="center", agent="gru", feedback=True, prune_discriminator=True, learning_rate=1e-3,
        weight_decay=1e-2, clip=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": -1}, "mggc.k must be a finite number of at least 0, not -1"),
        ({"lambda_1": math.nan}, "mggc.lambda_1 must be a finite number of at least 0, not nan"),
        ({"lambda_2": -0.5}, "mggc.lambda_2 must be a finite number of at least 0, not -0.5"),
        ({"weight_decay": math.inf}, "mggc.weight_decay must be a finite number of at least 0, not inf"),
        ({"temperature": 0}, "mggc.temperature must be a finite number above 0, not 0"),
        ({"learning_rate": -1e-3}, "mggc.learning_rate must be a finite number above 0, not -0.001"),
        ({"clip": 0}, "mggc.clip must be a finite number above 0, not 0"),
        ({"offset": math.inf}, "mggc.offset must be a finite number, not inf"),
        ({"noise": "none"}, "mggc.noise must be one of gumbel_paper, gumbel_sibling, logistic, not 'none'"),
        ({"regularizer": "l2"}, "mggc.regularizer must be one of one_sided, two_sided, not 'l2'"),
        ({"loss": "wgan"}, "mggc.loss must be one of lsgan, hinge, vanilla, not 'wgan'"),
        ({"pairing": "none"}, "mggc.pairing must be one of center, neighbor, not 'none'"),
        ({"agent": "mlp"}, "mggc.agent must be one of gru, free, not 'mlp'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        GameSettings(**changes)
    assert str(caught.value) == message
