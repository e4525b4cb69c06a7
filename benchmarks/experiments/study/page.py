"""The page of a study in Markdown: all numbers come from the results file, none is typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mggc_edge.benchmarks.experiments.study.intervals import DRAWS, NEIGHBORS
from mggc_edge.benchmarks.experiments.study.numbers import ORIGINAL, Difference, Measured, Numbers
from mggc_edge.benchmarks.experiments.study.record import Record
from mggc_edge.benchmarks.experiments.study.runner import seconds
from mggc_edge.benchmarks.experiments.study.table import Row, Study
from mggc_edge.quality.bootstrap import Estimate

SIZE, PARTS = "times smaller on disk = channels x bits", ("ratio", "channels", "bits")
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
MEASURED = (
    "Measured on {pictures} pictures ({where}), with the ONNX files of every run. Brackets hold 95 % intervals: "
    "{draws} bootstrap draws of seeds and, for all drawn seeds together, of pictures. An interval over one seed says "
    "nothing about other seeds, and one over two or three is too narrow. **better** and **worse** stand where the "
    "interval leaves out zero; no correction is made for the number of comparisons."
)
KID = (
    "KID is the unbiased estimate over all pictures, features {features}; for the bootstrap it is written as a mean of "
    "jackknife values, in which {real}. Neighbors are the {k} nearest in the same features."
)
HELD_OUT = (
    "Settings are to be chosen by the held-out columns (pictures that are neither for training nor for testing): PSNR "
    "to the original, and the distance to it in what its discriminator sees, by which a run chooses its checkpoint."
)


def page(study: Study, numbers: Numbers, figure: str | None) -> str:
    """Return results/<study>.md; `figure` is the file name of its picture, None where there is none."""
    parts = [f"# {study.title}", study.text, _made(study, numbers)]
    if figure is not None:
        parts.append(f"![Means with their 95 % intervals, and the mean of every seed]({figure})")
    if numbers.records:
        parts += ["## Results", _rows(study, numbers)]
        differences = [*numbers.differences(), *numbers.against_original()]
        if differences:
            parts += ["## Paired differences", _differences(study, numbers.measures(), differences)]
        parts += ["## What the rows share, and what differs", _fair(study, numbers), _notes(numbers)]
    return "\n\n".join(parts) + "\n"


def _made(study: Study, numbers: Numbers) -> str:
    done = {(record["row"], record["seed"]) for record in numbers.records}
    missing = [run.name for run in study.runs if (run.row.name, run.seed) not in done]
    state = f"All {len(study.runs)} runs are finished."
    if missing:
        state = f"**{len(done)} of {len(study.runs)} runs are finished**; missing: {', '.join(missing)}."
    return f"Made by `python -m mggc_edge.benchmarks.experiments.study {study.name} --data $DATA --runs DIR`. {state}"


def _rows(study: Study, numbers: Numbers) -> str:
    measures, sized = numbers.measures(), any(_times(record, "bits") != 1 for record in numbers.records)
    titles = [
        "row",
        "seeds",
        "MACs kept",
        *((SIZE,) if sized else ()),
        *(one.title for one in measures),
        "held-out PSNR, dB",
        "held-out distance",
        "minutes",
    ]
    lines = [_line(titles), _line(["---", *["---:"] * (len(titles) - 1)])]
    own = [_shown(one, numbers.original(one)) for one in measures]
    lines.append(_line(["the original", NONE, "1", *(("1",) if sized else ()), *own, NONE, NONE, NONE]))
    for row in study.rows:
        records = numbers.of(row)
        if not records:
            lines.append(_line([row.title, "0", *[NONE] * (len(titles) - 2)]))
            continue
        kept = [record["budget_met"] for record in records]
        cells = [
            row.title,
            f"{len(records)}",
            f"{_mean(kept):.4f}",
            *((_smaller(records),) if sized else ()),
            *(_shown(m, numbers.mean(row, m)) for m in measures),
        ]
        held_out = [_held_out(records, name, digits) for name, digits in (("psnr", 2), ("distance", 3))]
        lines.append(_line([*cells, *held_out, f"{_mean([seconds(record) for record in records]) / 60:.1f}"]))
    return "\n".join(lines)


def _times(record: Record, part: str) -> float:
    """Return by how much channels, bits or both make a run's file smaller than the original's; 1 where none is told."""
    size = record.get("size") or {}
    return float(size.get("disk", {}).get(part, 1.0))


def _smaller(records: Sequence[Record]) -> str:
    """Return the mean ratio of a row's runs, and its two parts; a dash where a run has none."""
    if not all(record.get("size") for record in records):
        return NONE
    whole, channels, bits = (_mean([_times(record, part) for record in records]) for part in PARTS)
    return f"{whole:.1f} = {channels:.2f} x {bits:.2f}"


def _held_out(records: Sequence[Record], name: str, digits: int) -> str:
    """Return the mean of a held-out value over the runs of a row; a dash where one has none."""
    measured = [(record["held_out"]["after_finetuning"] or {}).get(name) for record in records]
    found = [value for value in measured if value is not None]
    return f"{_mean(found):.{digits}f}" if len(found) == len(records) else NONE


def _differences(study: Study, measures: Sequence[Measured], differences: Sequence[Difference]) -> str:
    titles = {ORIGINAL: "the original", **{row.name: row.title for row in study.rows}}
    shown = [one for one in measures if any(d.measure is one for d in differences)]
    lines = [
        _line(["row", "minus", "seeds", *(one.title for one in shown)]),
        _line(["---", "---", "---:", *["---:"] * len(shown)]),
    ]
    pairs = list(dict.fromkeys((one.row, one.against) for one in differences))
    for pair in pairs:
        by_measure = {one.measure.name: one for one in differences if (one.row, one.against) == pair}
        seeds = max(one.seeds for one in by_measure.values())
        cells = []
        for measure in shown:
            one = by_measure.get(measure.name)
            text = _shown(measure, None if one is None else one.estimate)
            cells.append(f"{text} **{one.verdict}**" if one is not None and one.verdict else text)
        lines.append(_line([*(titles[name] for name in pair), str(seeds), *cells]))
    return "\n".join(lines)


def _fair(study: Study, numbers: Numbers) -> str:
    differing = numbers.differing()
    rows = [row for row in study.rows if numbers.of(row)]
    shared = (
        f"All rows share the seeds {', '.join(map(str, study.seeds))}, every setting that the table does not name, and "
        f"these flags:\n\n```\nmggc-edge compress {shlex.join(study.base)}\n```"
    )
    header = [_line(["", *(row.title for row in rows)]), _line(["---", *["---"] * len(rows)])]
    lines = [_line([f"`{name}`", *(_value(by_row[row.name]) for row in rows)]) for name, by_row in differing.items()]
    lines.append(_line(["discriminator's MACs kept", *(_judge(numbers, row) for row in rows)]))
    text = [shared, "\n".join([*header, *lines])]
    steps = {record["steps"].get("finetune") for record in numbers.records}
    trained = {_trained(record) for record in numbers.records}
    if len(steps) == 1:
        text.append(f"Steps of finetuning: {_value(steps.pop())} in every run.")
        if len(trained) > 1:
            most = " and ".join(map(str, sorted(trained)))
            text[-1] += f" GAN Slimming trains the generator while it slims too: {most} steps in all."
    elif len(trained) == 1:
        text.append(f"Steps that train the generator, in slimming and in finetuning: {trained.pop()} in every run.")
    else:
        text.append("**Not every run had as many steps of finetuning.**")
    return "\n\n".join(text)


def _notes(numbers: Numbers) -> str:
    test = numbers.records[0]["test"]
    real = "the real picture of each is left out with it" if test["paired"] else "the real pictures are taken as given"
    machines = sorted({f"{r['machine']['processor']}, {r['machine']['cores']} cores" for r in numbers.records})
    versions = sorted({f"torch {r['tools']['torch']}, mggc-edge {r['tools']['mggc-edge']}" for r in numbers.records})
    notes = [MEASURED.format(pictures=test["pictures"], where=test["where"], draws=DRAWS)]
    if test["features"] is not None:
        notes.append(KID.format(features=test["features"], real=real, k=NEIGHBORS))
    notes += [HELD_OUT, *test["remarks"]]
    notes.append(f"Machine: {'; '.join(machines)}. Versions: {'; '.join(versions)}.")
    return "\n\n".join(notes)


def _trained(record: Record) -> int:
    """Return how many steps train the generator: those of finetuning, and of GAN Slimming, which trains it as well."""
    stages = ("prune", "finetune") if record.get("slimming") else ("finetune",)
    return sum(int(record["steps"].get(stage, 0)) for stage in stages)


def _judge(numbers: Numbers, row: Row) -> str:
    kept = [record["discriminator_kept"] for record in numbers.of(row)]
    return "1" if None in kept else f"{_mean(kept):.3f}"


def _shown(measure: Measured, estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return NONE
    mean, *ends = (measure.show(value).replace("-", MINUS) for value in (estimate.value, *(estimate.ci95 or ())))
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def _value(value: object) -> str:
    if isinstance(value, list):
        return " or ".join(_value(part) for part in value)
    return NONE if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
