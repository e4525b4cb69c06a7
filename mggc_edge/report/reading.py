"""A run folder -> RunFacts. Only `manifest.json` and `plan.json` must be there; what is there must be whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import (
    BENCH_FILE,
    DISCRIMINATOR_PLAN_FILE,
    EXPORT_FOLDER,
    GENERATOR_FILE,
    MANIFEST_FILE,
    MANIFEST_SCHEMA,
    ORIGINAL_FILE,
    PLAN_FILE,
    PORTABLE,
    QUALITY_FILE,
    REPORT_FILE,
)
from mggc_edge.errors import ArtifactError
from mggc_edge.report.curves import read_log
from mggc_edge.report.facts import (
    Artifact,
    Cost,
    Distance,
    Group,
    Latency,
    Measured,
    Pair,
    Plan,
    Quality,
    RunFacts,
    Size,
)
from mggc_edge.report.fields import Fields, read_fields
from mggc_edge.report.power import read_power
from mggc_edge.report.samples import read_samples

PLAN_SCHEMA, BENCH_SCHEMA = "mggc-edge/plan/1", "mggc-edge/bench/1"
QUALITY_SCHEMA = "mggc-edge/quality/1"
SAMPLES_FOLDER, LOG_FILE = "samples", "logs/metrics.jsonl"
MAX_GROUPS = 1000
MAX_ROWS = 8  # models of a measurement, as many as one can have


def read_run(run: Path) -> RunFacts:
    """Read what the report of a run folder says.

    Raises:
        ArtifactError: `run` is no run folder, has no plan, or a file in it is damaged; the hint says whether a report
            can do without that file.
    """
    with _hint("bring it back from a copy, or compress anew: without it there is nothing to report"):
        return _read_run(run)


@contextlib.contextmanager
def _hint(text: str) -> Iterator[None]:
    """Give an ArtifactError without a way out this one."""
    try:
        yield
    except ArtifactError as error:
        if error.hint is not None:
            raise
        raise ArtifactError(error.message, hint=text) from error


def _without(path: Path) -> contextlib.AbstractContextManager[None]:
    """Name the way out where a part of a run is damaged that a report can do without."""
    return _hint(f"bring it back from a copy, or move '{path}' away: the report then leaves that part out")


def _read_run(run: Path) -> RunFacts:
    manifest = read_fields(run / MANIFEST_FILE, MANIFEST_SCHEMA)
    if manifest is None:
        raise ArtifactError(
            f"'{run}' is no run folder: it has no {MANIFEST_FILE}", hint="name a folder that `compress` wrote"
        )
    plan = _plan(run / PLAN_FILE)
    if plan is None:
        raise ArtifactError(
            f"'{run}' has no {PLAN_FILE}, so nothing was pruned that a report could show",
            hint="name a folder that `compress`, or `export --plan`, wrote",
        )
    result = manifest.fields("result") or Fields({}, run / MANIFEST_FILE)
    with _without(run / BENCH_FILE):
        bench = read_fields(run / BENCH_FILE, BENCH_SCHEMA)
        sides, rows = _bench_costs(bench), _rows(bench)
        measured = (rows[0][1], rows[1][1]) if len(rows) > 1 else None
        benched = _benched(bench, measured)
    with _without(run / DISCRIMINATOR_PLAN_FILE):
        discriminator = _plan(run / DISCRIMINATOR_PLAN_FILE)
    with _without(run / QUALITY_FILE):
        quality = _quality(read_fields(run / QUALITY_FILE, QUALITY_SCHEMA))
    with _without(run / SAMPLES_FOLDER):
        samples = read_samples(run / SAMPLES_FOLDER)
    with _without(run / LOG_FILE):
        log = read_log(run / LOG_FILE)
    files = {entry.text("path") or "": entry.number("size_bytes") for entry in manifest.objects("files")}
    files.pop(REPORT_FILE, None)  # so that a page that is built again is the same
    original, compressed = (
        _cost(result.fields(key), side, files.get(f"{EXPORT_FOLDER}/{PORTABLE}/{file}"))
        for key, side, file in (
            ("original", sides[0], ORIGINAL_FILE),
            ("compressed", sides[1], GENERATOR_FILE),
        )
    )
    return RunFacts(
        name=run.resolve().name,
        command=manifest.text("command") or "",
        command_line=manifest.text("command_line"),
        method=result.text("method"),
        plan=plan,
        discriminator=discriminator,
        original=original,
        compressed=compressed,
        sizes=_sizes(result.fields("size")),
        latency=_latency(result.fields("latency")) or benched,
        bench=measured,
        rows=rows,
        quality=quality,
        samples=samples,
        log=log,
        artifacts=tuple(map(_artifact, result.objects("artifacts"))),
        settings=_mapping(manifest, "settings"),
        tools=_mapping(manifest, "tools"),
        timings_s=_numbers(manifest, "timings_s"),
        files=files,
    )


def _mapping(fields: Fields, key: str) -> dict[str, Any]:
    inner = fields.fields(key)
    return {} if inner is None else dict(inner.items())


def _numbers(fields: Fields, key: str) -> dict[str, float]:
    inner = fields.fields(key)
    return {} if inner is None else {name: inner.needed_number(name) for name, _ in inner.items()}


def _plan(path: Path) -> Plan | None:
    fields = read_fields(path, PLAN_SCHEMA)
    if fields is None:
        return None
    spec, kept = fields.fields("spec"), fields.fields("kept")
    widths = None if spec is None else spec.fields("widths")
    size = fields.numbers("image_size")
    if spec is None or widths is None or kept is None or len(size) != 2:
        fields.damaged("'spec', 'kept' or 'image_size' is missing")
    names = [name for name, _ in widths.items()]
    if len(names) > MAX_GROUPS:
        fields.damaged(f"it has more than {MAX_GROUPS} channel groups")
    groups = tuple(Group(name, len(kept.list(name)), int(widths.needed_number(name))) for name in names)
    if {name for name, _ in kept.items()} != set(names):
        fields.damaged("'kept' and 'spec' do not have the same channel groups")
    if any(group.kept > group.total for group in groups):
        fields.damaged("it keeps more channels than there are")
    return Plan(
        family=spec.text("family") or "",
        blocks=int(spec.needed_number("blocks")),
        groups=groups,
        criterion=fields.text("criterion") or "",
        seed=int(fields.needed_number("seed")),
        budget=fields.needed_number("budget"),
        budget_met=fields.needed_number("budget_met"),
        convention=fields.text("convention") or "true",
        image_size=(int(size[0]), int(size[1])),
    )


def _cost(fields: Fields | None, bench: Cost, size_bytes: float | None) -> Cost:
    if fields is None:
        return Cost(None, bench.macs_true, bench.macs_paper, size_bytes)
    return Cost(
        parameters=fields.number("parameters"),
        macs_true=fields.number("macs_true"),
        macs_paper=fields.number("macs_paper"),
        size_bytes=fields.number("size_bytes"),
    )


def _sizes(fields: Fields | None) -> tuple[Size, Size] | None:
    """Return the sizes of an 8-bit generator, None of one in floats and in a run of an older version."""
    keys, places = Size.__dataclass_fields__, [fields and fields.fields(where) for where in ("disk", "memory")]
    a, b = (None if one is None else Size(**{key: one.needed_number(key) for key in keys}) for one in places)
    return None if a is None or b is None or round(a.bits, 2) == 1 else (a, b)


def _runs(bench: Fields | None) -> tuple[Fields, Fields] | None:
    runs = () if bench is None else bench.objects("runs")  # the original's, the compressed generator's, and others
    return (runs[0], runs[1]) if len(runs) >= 2 else None


def _bench_costs(bench: Fields | None) -> tuple[Cost, Cost]:
    runs = _runs(bench)
    if runs is None:
        return Cost(), Cost()
    a, b = (Cost(None, run.number("macs_true"), run.number("macs_paper"), None) for run in runs)
    return a, b


def _rows(bench: Fields | None) -> tuple[tuple[str, Measured], ...]:
    """Return what was measured of every model, with its name, runtime and precision."""
    runs, words = () if bench is None else bench.objects("runs")[:MAX_ROWS], ("model", "runtime", "precision")
    return tuple((", ".join(filter(None, map(run.text, words))), _measured(run)) for run in runs)


def _measured(run: Fields) -> Measured:
    latency, memory = run.fields("latency_ms"), run.fields("memory")
    samples = run.numbers("samples_ns")
    if any(sample < 0 for sample in samples):
        run.damaged("a sample took less than no time")
    return Measured(
        p50_ms=None if latency is None else latency.number("p50"),
        ci95_ms=None if latency is None else latency.interval("ci95"),
        samples_ns=samples,
        load_ms=run.number("load_ms"),
        first_inference_ms=run.number("first_inference_ms"),
        rss_peak_bytes=None if memory is None else memory.number("rss_peak_bytes"),
        threads=run.number("threads"),
        warnings=tuple(str(warning)[:300] for warning in run.list("warnings")[:20]),
        power=read_power(run),
    )


def _latency(fields: Fields | None) -> Latency | None:
    if fields is None:
        return None
    return Latency(
        original_ms=fields.number("original_ms"),
        compressed_ms=fields.number("compressed_ms"),
        speedup=fields.number("speedup"),
        ci95=fields.interval("ci95"),
        realisation=fields.number("realisation"),
        device=fields.text("device"),
        runtime=fields.text("runtime"),
        precision=fields.text("precision"),
        verdict=fields.text("verdict"),
        original_runtime=fields.text("original_runtime"),
        **_doubts(fields),
    )


def _doubts(fields: Fields) -> dict[str, Any]:
    """Return what a latency in a result, or a comparison, says against itself; an older version says nothing."""
    return {
        "ci99": fields.interval("ci99"),
        "reason": fields.text("reason"),
        "disturbed": tuple(str(code)[:300] for code in fields.list("disturbed")[:20]),
        "warnings": tuple(
            (one.text("code") or "", f"{one.text('text') or ''}; {one.text('advice') or ''}")
            for one in fields.objects("warnings")[:20]
        ),
        "left_out": int(fields.number("pairs_left_out") or 0),
    }


def _benched(bench: Fields | None, measured: tuple[Measured, Measured] | None) -> Latency | None:
    """Return the latency of `bench.json`: its first comparison is that of its first two runs."""
    runs = _runs(bench)
    if bench is None or runs is None or measured is None:
        return None
    comparison = next(iter(bench.objects("comparisons")), None)
    context = bench.fields("context")
    return Latency(
        original_ms=measured[0].p50_ms,
        compressed_ms=measured[1].p50_ms,
        speedup=None if comparison is None else comparison.number("ratio"),
        ci95=None if comparison is None else comparison.interval("ci95"),
        realisation=None if comparison is None else comparison.number("realisation"),
        device=None if context is None else context.text("device"),
        runtime=runs[1].text("runtime"),
        precision=runs[1].text("precision"),
        verdict=None if comparison is None else comparison.text("verdict"),
        original_runtime=runs[0].text("runtime"),
        **({} if comparison is None else _doubts(comparison)),
    )


def _quality(fields: Fields | None) -> Quality | None:
    if fields is None:
        return None
    truth = fields.fields("to_truth")
    before, after = fields.fields("before_finetuning"), fields.fields("after_finetuning")
    pictures = fields.number("pictures")
    seen = fields.fields("segmentation")
    real = None if seen is None else seen.fields("real")
    return Quality(
        pictures=None if pictures is None else int(pictures),
        where=fields.text("where"),
        identical=fields.flag("identical") is True,
        psnr_to_original=fields.number("psnr_to_original"),
        psnr_ci95=fields.interval("psnr_to_original_ci95"),
        ssim_to_original=fields.number("ssim_to_original"),
        psnr_to_truth=_pair(truth, "psnr", interval="psnr_ci95"),
        ssim_to_truth=_pair(truth, "ssim", interval="ssim_ci95"),
        distances=_distances(fields),
        psnr_before_finetuning=None if before is None else before.number("psnr"),
        psnr_after_finetuning=None if after is None else after.number("psnr"),
        ssim_ci95=fields.interval("ssim_to_original_ci95"),
        miou=_pair(seen, "miou", interval="miou_ci95"),
        pixel_accuracy=_pair(seen, "pixel_accuracy"),
        miou_real=None if real is None else real.number("miou"),
    )


def _distances(fields: Fields) -> tuple[Distance, ...]:
    """Return the distances by every network; a document of an older version has them of one, at its top."""
    rows = fields.objects("distances")
    if rows:
        return tuple(
            Distance(
                features=row.text("features") or "",
                metric=row.text("metric") or "frechet",
                kid=_pair(row.fields("kid"), "value", "std", "ci95"),
                frechet=_sides(row.fields("frechet")),
                reason=row.text("reason"),
                kid_reason=row.text("kid_reason"),
            )
            for row in rows
        )
    features = fields.text("features")
    if features is None:
        return ()
    return (
        Distance(features, "frechet", _pair(fields.fields("kid"), "value", "std"), _sides(fields.fields("frechet"))),
    )


def _sides(fields: Fields | None) -> Pair | None:
    if fields is None:
        return None
    return Pair(
        fields.number("original"),
        fields.number("compressed"),
        original_ci95=fields.interval("original_ci95"),
        compressed_ci95=fields.interval("compressed_ci95"),
    )


def _pair(both: Fields | None, key: str, spread: str = "", interval: str = "") -> Pair | None:
    if both is None:
        return None
    sides = [both.fields(side) for side in ("original", "compressed")]
    a, b = (None if side is None else side.number(key) for side in sides)
    a_std, b_std = (None if side is None or not spread else side.number(spread) for side in sides)
    a_ends, b_ends = (None if side is None or not interval else side.interval(interval) for side in sides)
    return Pair(a, b, a_std, b_std, a_ends, b_ends)


def _artifact(fields: Fields) -> Artifact:
    return Artifact(
        path=fields.text("path") or "",
        target=fields.text("target"),
        runtime=fields.text("runtime"),
        precision=fields.text("precision"),
        accepted=fields.flag("accepted"),
        reason=fields.text("reason"),
    )
