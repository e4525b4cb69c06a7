"""The parts of the page about how it went: curves of every stage, settings, tools, times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mggc_edge.report.charts import Series, line_chart
from mggc_edge.report.curves import MAX_LINES, Curve, Stage
from mggc_edge.report.facts import RunFacts
from mggc_edge.report.numbers import DASH, percent, plain, seconds, size
from mggc_edge.report.sections import absent, section
from mggc_edge.report.words import loss_name

STAGES = {
    "encoder": "Encoder",
    "discriminator": "Discriminator",
    "prune": "Pruning",
    "finetune": "Finetuning",
}
HELD_OUT = {"psnr": "PSNR (dB)", "distance": "distance to the original", "l1_truth": "L1 to the truth"}
# 1 and 2 are the original's and the compressed generator's everywhere on the page.
LOSS_STYLES = {"loss_g": 3, "loss_d": 4}
OTHER_STYLES = (6, 5, 7, 8, 3, 4)
MAX_LOSSES = 6
MAX_ENTRIES = 500


def curves(facts: RunFacts) -> str:
    """Return the curves of every stage, in the order in which the stages ran."""
    stages = [(stage, _charts(stage, facts.plan.budget)) for stage in facts.log.stages]
    body = "".join(
        f'<h3>{escape(STAGES.get(stage.name, stage.name))}</h3><div class="charts">{charts}</div>'
        for stage, charts in stages
        if charts
    )
    if not facts.log.whole:
        words = f"The log has more than {MAX_LINES:,} lines; what comes after them is not shown."
        body = f'<p class="warning">{words}</p>{body}'
    return section("training", "Training", body or absent("This run has no logs/metrics.jsonl: nothing was trained."))


def _charts(stage: Stage, budget: float) -> str:
    name = STAGES.get(stage.name, stage.name)
    losses = [curve for curve in stage.curves if curve.name.startswith("loss_") or curve.name == "loss"]
    charts = []
    if losses:
        free = iter(OTHER_STYLES)
        series = [
            Series(loss_name(curve.name), curve, LOSS_STYLES.get(curve.name) or next(free))
            for curve in losses[:MAX_LOSSES]
        ]
        more = f"{len(losses) - MAX_LOSSES} more in the log" if len(losses) > MAX_LOSSES else ""
        charts.append(_figure(f"{name}: losses", "Losses", series, more=more))
    regularizer = stage.curve("regularizer")
    if regularizer is not None:
        charts.append(_figure(f"{name}: budget term R", "Budget term R", [Series("R", regularizer, 7)], zero=True))
    fraction = stage.curve("macs_fraction")
    if fraction is not None:
        asked = stage.curve("budget")
        level = asked.points[-1][1] if asked is not None else budget
        series = [Series("T(v) of the generator", fraction, 2)]
        charts.append(_figure(f"{name}: MACs kept", "MACs kept", series, zero=True, level=level, as_percent=True))
    rho = stage.curve("rho")
    if rho is not None:
        charts.append(_figure(f"{name}: rho", "Weight of the scales, rho", [Series("rho", rho, 7)], zero=True))
    for curve in stage.curves:
        if curve.name.startswith("held_out."):
            key = curve.name.removeprefix("held_out.")
            label = HELD_OUT.get(key, key)
            charts.append(_figure(f"{name}: held-out {label}", f"Held-out {label}", [Series(label, curve, 2)]))
    return "".join(charts)


def _figure(
    title: str,
    caption: str,
    series: Sequence[Series],
    *,
    more: str = "",
    zero: bool = False,
    level: float | None = None,
    as_percent: bool = False,
) -> str:
    keys = [f'<span class="key s{one.style}">{escape(one.label)}</span>' for one in series]
    if level is not None:
        keys.append(f'<span class="key level">budget {percent(level)}</span>')
    if more:
        keys.append(f"<span>{more}</span>")
    legend = f'<span class="legend">{"".join(keys)}</span>' if len(keys) > 1 else ""
    chart = line_chart(
        series,
        title=title,
        description="; ".join(_summary(one.label, one.curve) for one in series),
        zero=zero,
        level=level,
        as_percent=as_percent,
    )
    return f'<figure class="plot"><figcaption><strong>{escape(caption)}</strong>{legend}</figcaption>{chart}</figure>'


def _summary(label: str, curve: Curve) -> str:
    (first, before), (last, after) = curve.points[0], curve.points[-1]
    return f"{label} goes from {plain(before)} at step {first:g} to {plain(after)} at step {last:g}"


def details(facts: RunFacts) -> str:
    """Return what is folded away: times, settings, versions of the tools, files."""
    total = sum(facts.timings_s.values())
    times = [(stage, seconds(spent)) for stage, spent in facts.timings_s.items()]
    if len(times) > 1:
        times.append(("together", seconds(total)))
    plan = facts.plan
    made = [("method", facts.method or plan.criterion), ("seed of the plan", str(plan.seed))]
    settings = [*made, *((name, _setting(value)) for name, value in _flat(facts.settings))]
    tools = [(name, DASH if version is None else _setting(version)) for name, version in facts.tools.items()]
    files = [(path, DASH if bytes_ is None else size(bytes_)) for path, bytes_ in facts.files.items()]
    parts = [("Times", times), ("Settings", settings), ("Tools", tools), ("Files", files)]
    body = "".join(_fold(name, rows) for name, rows in parts if rows)
    return section("details", "How it was made", body)


def _fold(name: str, rows: Sequence[tuple[str, str]]) -> str:
    inner = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>' for key, text in rows[:MAX_ENTRIES]
    )
    more = f"<p>{len(rows) - MAX_ENTRIES} more are in manifest.json.</p>" if len(rows) > MAX_ENTRIES else ""
    return (
        f"<details><summary>{name} <small>{len(rows)}</small></summary>"
        f'<table class="texts"><tbody>{inner}</tbody></table>{more}</details>'
    )


def _flat(settings: Mapping[str, Any], inside: str = "") -> list[tuple[str, Any]]:
    """Return settings in sections as one list of dotted names, one section deep."""
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict) and not inside:
            rows += _flat(value, f"{name}.")
        else:
            rows.append((f"{inside}{name}", value))
    return rows


def _setting(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else f"{text[:500]} ..."
