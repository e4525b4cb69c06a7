"""What a format says of: one thing that was judged, or only measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "fail", "inconclusive", "measured"]


@dataclass(frozen=True)
class Case:
    """One thing that was judged, or only measured.

    Attributes:
        name: what it is about: "compressed", "compressed, file size".
        outcome: what came of it; "measured" where nothing was judged.
        message: one sentence.
        details: further sentences.
        seconds: the time that its timed inferences took.
    """

    name: str
    outcome: Outcome
    message: str
    details: str = ""
    seconds: float = 0.0
