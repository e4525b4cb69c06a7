"""How a job speaks to whoever started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mggc_edge.errors import MggcEdgeError, PictureError
from mggc_edge.training.loop import Watch
from mggc_edge.training.material import Track


@dataclass(frozen=True)
class Hooks:
    """What is told: a line, how far a stage is, how far reading pictures is (`track`), and a skipped file.

    `begun` is called when what was given has been checked and work begins. `lost` is told, in another thread, what
    another process of the job failed with where this one does not notice; it is to end this one.
    """

    tell: Callable[[str], None] = lambda _: None
    watch: Watch = lambda _: None
    track: Track = lambda numbers, _: numbers
    skipped: Callable[[Path, PictureError], None] = lambda _path, _error: None
    begun: Callable[[], None] = lambda: None
    lost: Callable[[MggcEdgeError], None] = lambda _: None
