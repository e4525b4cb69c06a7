"""How stable pruning is: both losses and R over the steps, as in the paper's Fig. 4, and the gap between the losses.

    python -m mggc_edge.benchmarks.experiments.stability [STUDY ...] [--results benchmarks/results]

Draws results/stability.svg and writes results/stability.md from the results of studies that keep their curves (by
default stability-pix2pix and stability-cyclegan), a line of panels for each study and each kind of agent. Makes no runs
itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import atomic_write
from mggc_edge.benchmarks.experiments.study.figure import WIDTH, pyplot, save
from mggc_edge.benchmarks.experiments.study.losses import EPSILON
from mggc_edge.benchmarks.experiments.study.record import Record, check_records, read_records
from mggc_edge.benchmarks.experiments.study.table import Study, find_study, read_study
from mggc_edge.errors import InputError

RESULTS = Path(__file__).parent.parent / "results"
STUDIES = ("stability-pix2pix", "stability-cyclegan")
COLORS = ("#1f5fbf", "#d1495b", "#2e8b57", "#8d5fd3", "#b06a00")
PANELS = (("loss_g", "L_G"), ("loss_d", "L_D"), ("r", "R / log(1 / budget)"))
HEAD = """| study | chosen by | lambda_1 | seed | first step with R near 0 | steps after it | gap |
| --- | --- | ---: | ---: | ---: | ---: | ---: |"""
AGENTS = {"gru": "agents", "free": "free logits"}


def read(names: Sequence[str], results: Path) -> list[tuple[Study, list[Record]]]:
    """Return the studies that have runs with curves, with these runs, by rising lambda_1.

    Raises:
        InputError: there is no such study, or none of them has such a run.
    """
    found = []
    for name in names:
        study = read_study(find_study(name))
        path = results / f"{study.name}.jsonl"
        records = read_records(path)
        check_records(study, records, path)
        kept = [record for record in records if record.get("losses")]
        if kept:
            found.append((study, sorted(kept, key=lambda record: (_lambda(record), record["row"], record["seed"]))))
    if not found:
        raise InputError("no run of these studies has curves of a pruning stage", "run them first")
    return found


def _lambda(record: Record) -> float:
    return float(record["settings"]["mggc.lambda_1"])


def _agent(record: Record) -> str:
    return str(record["settings"]["mggc.agent"])


def draw(studies: Sequence[tuple[Study, Sequence[Record]]], path: Path) -> None:
    """Draw a line of panels (L_G, L_D, R) for every study and kind of agent, and a curve for every run."""
    plt = pyplot()
    lines = [(study, records, agent) for study, records in studies for agent in AGENTS if _with(records, agent)]
    lambdas = sorted({_lambda(record) for _, records in studies for record in records})
    colors = {value: COLORS[number % len(COLORS)] for number, value in enumerate(lambdas)}
    figure, axes = plt.subplots(
        len(lines), len(PANELS), figsize=(WIDTH, 0.5 + 1.55 * len(lines)), sharex="row", squeeze=False
    )
    for number, (row, (study, records, agent)) in enumerate(zip(axes, lines, strict=True)):
        for axis, (name, title) in zip(row, PANELS, strict=True):
            for record in _with(records, agent):
                curves = record["losses"]["curves"]
                color = colors[_lambda(record)]
                axis.plot(curves["step"], curves[name], color=color, linewidth=1.1)
            axis.tick_params(length=0, labelsize=8)
            if number == 0:
                axis.set_title(title, loc="left")
            if number == len(lines) - 1:
                axis.set_xlabel("step", fontsize=8)
        row[0].set_ylabel(f"{study.title.rpartition(', ')[2]}\n{AGENTS[agent]}", fontsize=8)
    for column in range(2):  # the two losses of a study share their scale, whoever chooses
        for study, _ in studies:
            own = [row[column] for row, (other, _, _) in zip(axes, lines, strict=True) if other is study]
            limits = [axis.get_ylim() for axis in own]
            for axis in own:
                axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    handles = [plt.Line2D([], [], color=colors[value], label=f"lambda_1 = {value:g}") for value in lambdas]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False, fontsize=8.5)
    save(figure, path)
    plt.close(figure)


def _with(records: Sequence[Record], agent: str) -> list[Record]:
    return [record for record in records if _agent(record) == agent]


def page(studies: Sequence[tuple[Study, Sequence[Record]]], picture: str) -> str:
    """Return results/stability.md."""
    sources = ", ".join(f"`{study.name}.jsonl`" for study, _ in studies)
    rows = [_line(study, record, record["losses"]) for study, records in studies for record in records]
    return f"""# Stability of pruning

Made by `python -m mggc_edge.benchmarks.experiments.stability` from {sources}.

![L_G, L_D and R over the steps of pruning]({picture})

The losses are the adversarial parts, without lambda_1 R and lambda_2 mean(v_D); every curve is the mean over stretches
of the steps. R / log(1 / budget) is 1 for the whole network and 0 at the budget.

## The gap between the losses after R has reached 0

The mean of abs(L_G - L_D) over the steps after the first one with R < {EPSILON:g}, which is a cost less than
{100 * EPSILON:g} % above the budget.

{HEAD}
{"".join(rows)}"""


def _line(study: Study, record: Record, losses: dict[str, Any]) -> str:
    reached, gap = losses["reached"], losses["gap"]
    after = 0 if reached is None else losses["steps"] - reached - 1
    return (
        f"| {study.title.rpartition(', ')[2]} | {AGENTS[_agent(record)]} | {_lambda(record):g} | {record['seed']} "
        f"| {'never' if reached is None else reached} | {after} | {'' if gap is None else f'{gap:.3f}'} |\n"
    )


def main() -> None:
    """Draw the picture and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", default=STUDIES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    studies = read(options.studies, options.results)
    picture = options.results / "stability.svg"
    draw(studies, picture)
    atomic_write(picture.with_suffix(".md"), page(studies, picture.name).encode())


if __name__ == "__main__":
    main()
