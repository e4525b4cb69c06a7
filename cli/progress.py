"""Progress of long work: a bar with losses and time left on a terminal, a line every 10 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mggc_edge.cli.output import SECONDS_BETWEEN_LINES, Output

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from mggc_edge.training.loop import Progress

# What is worth seeing while it runs, in this order; the log has everything.
SHOWN = ("macs_fraction", "regularizer", "loss", "loss_g", "loss_d", "loss_d_a", "loss_d_b", "loss_l1", "loss_cycle")
MOST_SHOWN = 4


class StageProgress:
    """Shows how far the stages of a job are. Lines of the job go through `tell`, so that they do not tear a bar."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last = time.monotonic()

    def __enter__(self) -> StageProgress:
        if not self._out.quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("[dim]{task.fields[metrics]}[/]"),
                console=self._out.console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def tell(self, text: str) -> None:
        """Print a line about what goes on."""
        if self._bars is not None:
            from mggc_edge.cli.output import shown

            self._bars.console.print(shown(text), highlight=False, soft_wrap=True)
        else:
            self._out.remark(text)

    def watch(self, progress: Progress) -> None:
        """Show how far a stage is."""
        left = "" if progress.seconds_left is None else f"{time_left(progress.seconds_left)} left"
        self._show(progress.stage, progress.done, progress.steps, left, summary(progress.metrics))

    def track(self, items: Iterable[int], total: int) -> Iterator[int]:
        """Yield `items`, which are read, and show how many of them were."""
        for done, item in enumerate(items, start=1):
            yield item
            self._show("reading", done, total, "", "")

    def _show(self, stage: str, done: int, steps: int, left: str, metrics: str) -> None:
        if self._bars is not None:
            self._show_bar(stage, done, steps, left, metrics)
        elif not self._out.quiet and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._out.remark(", ".join(part for part in (f"{stage}: {done} of {steps}", left, metrics) if part))

    def _show_bar(self, stage: str, done: int, steps: int, left: str, metrics: str) -> None:
        assert self._bars is not None
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.remove_task(task)
            self._tasks = {stage: self._bars.add_task(stage, total=steps, left="", metrics="")}
        self._bars.update(self._tasks[stage], completed=done, left=left, metrics=metrics)


def summary(metrics: Mapping[str, Any]) -> str:
    """Return the few numbers that a line has room for."""
    found = [f"{name.removeprefix('loss_')} {metrics[name]:.3g}" for name in SHOWN if name in metrics]
    return "  ".join(found[:MOST_SHOWN])


def time_left(seconds: float) -> str:
    """Return a duration as 0:42, 12:05 or 1:35:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
