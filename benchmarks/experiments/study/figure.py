"""The picture of a study: every row's mean with its interval, and the mean of every seed, on a light ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mggc_edge.artifacts import atomic_path
from mggc_edge.benchmarks.experiments.study.numbers import Measured, Numbers
from mggc_edge.benchmarks.experiments.study.table import Study
from mggc_edge.lazy import require

WIDTH = 8.6  # inches, at 96 points about as wide as a README
PANELS = ("kid", "psnr_to_original", "psnr_to_truth")
CHOSEN, OTHER, ORIGINAL = "#1f5fbf", "#4d4d4d", "#b06a00"


def pyplot() -> Any:
    """Return matplotlib's pyplot, drawing to files, with the look that all pictures of the experiments share.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="experiments")
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#999999",
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "font.size": 9,
            "axes.titlesize": 9,
            "svg.hashsalt": "mggc-edge",  # the same file for the same numbers
        }
    )
    return require("matplotlib.pyplot", extra="experiments")


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG, PNG or whatever its name says, whole or not at all."""
    with atomic_path(path) as temporary:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, dpi=160)


def draw(study: Study, numbers: Numbers, path: Path) -> bool:
    """Draw the rows of a study; return False, and draw nothing, where no run has any of the measures."""
    panels = [one for one in numbers.measures() if one.name in PANELS]
    if not panels:
        return False
    plt = pyplot()
    rows = [row for row in study.rows if numbers.of(row)]
    height = 0.75 + 0.3 * (len(rows) + 1)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, height), sharey=True, squeeze=False)
    for axis, measure in zip(axes[0], panels, strict=True):
        _panel(axis, study, numbers, measure, first=measure is panels[0])
    names = [row.title for row in rows]
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(len(names) - 0.5, -0.5)
    figure.tight_layout(w_pad=1.5)
    save(figure, path)
    plt.close(figure)
    return True


def _panel(axis: Any, study: Study, numbers: Numbers, measure: Measured, *, first: bool) -> None:
    rows = [row for row in study.rows if numbers.of(row)]
    for place, row in enumerate(rows):
        mean = numbers.mean(row, measure)
        if mean is None:
            continue
        color = CHOSEN if row.name in (study.compare or "").split(",") else OTHER
        if mean.ci95 is not None:
            axis.plot(mean.ci95, [place, place], color=color, linewidth=2, solid_capstyle="round")
        axis.plot(mean.value, place, "o", color=color, markersize=6)
        seeds = numbers.seed_means(row, measure)
        axis.plot(seeds, [place + 0.27] * len(seeds), "|", color=color, markersize=6, alpha=0.7)
    original = numbers.original(measure)
    if original is not None:
        if original.ci95 is not None:
            axis.axvspan(*original.ci95, color=ORIGINAL, alpha=0.1, linewidth=0)
        axis.axvline(original.value, color=ORIGINAL, linewidth=1, linestyle="--", label="the original")
        if first:
            axis.legend(loc="lower right", fontsize=7.5, frameon=False, bbox_to_anchor=(1.02, 1.0), borderpad=0)
    axis.set_title(f"{measure.title} {'→' if measure.better > 0 else '←'}", loc="left")
    axis.tick_params(length=0)
    axis.grid(visible=False, axis="y")
