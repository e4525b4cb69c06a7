"""The parts of the page about results, each from the facts to a piece of HTML; every text out of a file is escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape

from mggc_edge.report.bars import Bar, bar_chart
from mggc_edge.report.charts import kept_bar, strip_plot
from mggc_edge.report.facts import COLUMNS, Artifact, Latency, Measured, Pair, Plan, Quality, RunFacts, Sample
from mggc_edge.report.numbers import DASH, count, decibel, interval, joules, milliseconds, percent, plain, size, watts
from mggc_edge.report.words import UNCLEAR, image_size, network, place, tested

NS_PER_MS = 1e6
NAMES = {"input": "Input", "original": "Original", "compressed": "Compressed", "truth": "Truth"}


def section(identity: str, heading: str, body: str) -> str:
    """Return a part of the page with its heading."""
    return f'<section id="{identity}"><h2>{escape(heading)}</h2>{body}</section>'


def absent(what: str) -> str:
    """Return the line that stands for a part which is not there."""
    return f'<p class="absent">{escape(what)}</p>'


def value(number: float | None, form: Callable[[float], str]) -> str:
    """Return a number in its form, or a dash."""
    return f'<span class="none">{DASH}</span>' if number is None else escape(form(number))


def tiles(facts: RunFacts) -> str:
    """Return the three numbers of the headline, large; none of them where it is not known."""
    plan, latency, quality = facts.plan, facts.latency, facts.quality
    before, after = facts.original.macs(plan.convention), facts.compressed.macs(plan.convention)
    found = []
    if before and after:
        found.append((*_change(before / after, "fewer MACs", "more MACs"), f"{count(before)} \u2192 {count(after)}"))
    else:
        found.append((percent(plan.budget_met), "of the MACs kept", f"{percent(plan.budget)} asked for"))
    if latency is not None and latency.speedup:
        times = [DASH if time is None else milliseconds(time) for time in (latency.original_ms, latency.compressed_ms)]
        found.append((*_speed(latency, latency.speedup), " \u2192 ".join(times)))
    if quality is not None and quality.psnr_to_original is not None:
        shown = decibel(quality.psnr_to_original)
        on = "" if quality.pictures is None else f"on {quality.pictures:,} {tested(quality)}"
        found.append((shown, "PSNR to the original", on))
    return "".join(
        f'<div class="tile"><strong>{escape(number)}</strong><span>{escape(label)}</span>'
        f"<small>{escape(detail)}</small></div>"
        for number, label, detail in found
    )


def _speed(latency: Latency, ratio: float) -> tuple[str, str]:
    if not latency.told_apart:
        return "?", "these samples cannot tell"
    return ("=", "as fast as the original") if latency.verdict == "same" else _change(ratio, "faster", "slower")


def _change(ratio: float, better: str, worse: str) -> tuple[str, str]:
    return (f"{plain(ratio)}\u00d7", better) if ratio >= 1 else (f"{plain(1 / ratio)}\u00d7", worse)


def pictures(samples: Sequence[Sample]) -> str:
    """Return the pictures: input, original, compressed and truth, all of one size.

    Without a script every sample is a row of its pictures. The script makes of the row a slider between any two of
    them, which the reader chooses, and a chooser of the sample.
    """
    if not samples:
        return section("pictures", "Pictures", absent("This run has no sample pictures."))
    articles = "".join(map(_sample, samples))
    hint = (
        '<p class="hint only-script">Drag the line, or use the arrow keys; '
        "any of the pictures can stand on either side of it.</p>"
    )
    return section("pictures", "Pictures", f'{hint}<div id="samples">{articles}</div>')


def _sample(sample: Sample) -> str:
    name = escape(sample.name)
    figures = ""
    for column in COLUMNS:
        if column in sample.pictures:
            data = base64.b64encode(sample.pictures[column]).decode("ascii")
            figures += (
                f'<figure class="{column}" data-column="{column}">'
                f'<img alt="{NAMES[column]}: {name}" src="data:image/png;base64,{data}">'
                f"<figcaption>{NAMES[column]}</figcaption></figure>"
            )
    return f'<article class="sample" data-name="{name}"><div class="row">{figures}</div><h3>{name}</h3></article>'


def costs(facts: RunFacts) -> str:
    """Return the table of latency and MACs, and every raw sample below it."""
    a, b, latency = facts.original, facts.compressed, facts.latency
    at = f"at {image_size(facts.plan)}"
    rows = []
    if latency is not None:
        ends = "" if latency.bounds is None else f"<small>{latency.level}: {interval(latency.bounds)}</small>"
        ratio = value(latency.speedup, lambda number: f"{plain(number)}\u00d7") + ends
        if not latency.told_apart:
            ratio = "?" + ("" if latency.disturbed else ends)
        sides = (None, None) if facts.bench is None else (facts.bench[0].ci95_ms, facts.bench[1].ci95_ms)
        cells = [
            value(number, milliseconds) + _side_interval(number, side)
            for number, side in zip((latency.original_ms, latency.compressed_ms), sides, strict=True)
        ]
        note = f"a picture{place(latency)}" + ("; 95\u00a0% intervals below" if "<small>" in "".join(cells) else "")
        rows.append(_row("Latency, median", note, *cells, ratio))
    rows.append(_cost_row("MACs", f"multiplications needed, {at}", a.macs_true, b.macs_true, count))
    rows.append(_cost_row("MACs, paper", "as the literature counts them", a.macs_paper, b.macs_paper, count))
    rows.append(_cost_row("Parameters", "", a.parameters, b.parameters, count))
    if not facts.sizes:
        rows.append(_cost_row("File size", "ONNX, fp32", a.size_bytes, b.size_bytes, size))
    for where, one in zip(("on disk", "in memory"), facts.sizes or (), strict=False):
        note = f"channels {plain(one.channels)}\u00d7, bits {plain(one.bits)}\u00d7"
        rows.append(_cost_row(f"Size in int8, {where}", note, one.original_bytes, one.compressed_bytes, size))
    if facts.bench is not None:
        x, y = facts.bench
        rows.append(_cost_row("Time to load", "", x.load_ms, y.load_ms, milliseconds))
        rows.append(_cost_row("First picture", "", x.first_inference_ms, y.first_inference_ms, milliseconds))
        rows.append(_cost_row("Memory", "peak of the process", x.rss_peak_bytes, y.rss_peak_bytes, size))
        rows += _power_rows(x, y)
    if latency is not None:
        real = value(latency.realisation if latency.told_apart else None, percent)
        none = value(None, plain)
        note = "part of the MACs ratio that arrives as speed"
        doubt = "" if latency.told_apart or latency.realisation is None else f"; {UNCLEAR}"
        if latency.told_apart and latency.implausible:
            doubt = "; more than all of it is implausible"
        rows.append(_row("Realisation", note + doubt, none, none, real))
    if facts.bench is not None:
        tail = bars(facts.rows) + strip(facts.bench, latency)
    elif latency is None:
        tail = absent("This run has no bench.json: latency was not measured. mggc-edge bench measures it.")
    else:
        tail = absent("This run has no bench.json: there are no raw samples.")
    return section("cost", "Cost", _table(("", "Original", "Compressed", "Ratio"), rows) + tail)


def _power_rows(x: Measured, y: Measured) -> list[str]:
    """Return the rows about power, which few machines measure."""
    a, b = x.power, y.power
    rows = []
    if a.pool_bytes is not None or b.pool_bytes is not None:
        note = "of the pool that processor and GPU share"
        rows.append(_cost_row("Memory, shared", note, a.pool_bytes, b.pool_bytes, size))
    if a.energy_mj is not None or b.energy_mj is not None:
        rows.append(_cost_row("Energy a picture", b.total or a.total or "", a.energy_mj, b.energy_mj, joules))
        above = "without what the idle board takes"
        rows.append(_cost_row("Energy above idle", above, a.above_idle_mj, b.above_idle_mj, joules))
        idle = " and ".join(DASH if one.idle_w is None else watts(one.idle_w) for one in (a, b))
        rows.append(_cost_row("Power", f"of the idle board before: {idle}", a.mean_w, b.mean_w, watts))
    return rows


def _side_interval(number: float | None, ends: tuple[float, float] | None) -> str:
    if number is None or ends is None or not ends[0] <= number <= ends[1]:
        return ""  # the interval belongs to another file than the one in the result
    return f"<small>{interval(ends)}</small>"


def bars(rows: Sequence[tuple[str, Measured]]) -> str:
    """Return the bars of the medians of all models that were measured; nothing where none is known."""
    found = [
        Bar(label, 1 if number == 0 else 2, side.p50_ms, _around(side.p50_ms, side.ci95_ms))
        for number, (label, side) in enumerate(rows)
        if side.p50_ms is not None and side.p50_ms >= 0
    ]
    if not found:
        return ""
    chart = bar_chart(found, title="Median latency of every model")
    caption = "The median latency of a picture, with its 95\u00a0% interval."
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def _around(number: float, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return ends if ends is not None and 0 <= ends[0] <= number <= ends[1] else None


def strip(bench: tuple[Measured, Measured], latency: Latency | None) -> str:
    """Return the plot of the raw samples, and what was warned of."""
    rows = [
        (label, style, [sample / NS_PER_MS for sample in side.samples_ns], side.p50_ms)
        for label, style, side in zip(("Original", "Compressed"), ("s1", "s2"), bench, strict=True)
        if side.samples_ns
    ]
    if not rows:
        return absent("bench.json holds no raw samples.")
    total = sum(len(side.samples_ns) for side in bench)
    threads = bench[0].threads
    on = "" if threads is None else f", {threads:.0f} thread{'s' * (threads != 1)}"
    caption = f"Every timed picture is a dot ({total:,} in all{on}); the line is the median."
    if latency is not None and latency.left_out:
        pairs = "pair of samples was" if latency.left_out == 1 else "pairs of samples were"
        caption += f" {latency.left_out:,} {pairs} disturbed by other processes: among the dots, but not in the ratio."
    warnings = _warnings(bench, latency)
    plot = strip_plot(rows, title="Raw latency samples of original and compressed generator")
    return f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>{warnings}"


def _warnings(bench: tuple[Measured, Measured], latency: Latency | None) -> str:
    """Return what was warned of, in sentences; a run of an older version has codes alone."""
    said = dict(() if latency is None else latency.warnings)
    codes = [code for code in dict.fromkeys((*bench[0].warnings, *bench[1].warnings)) if code not in said]
    words = ", ".join(code.replace("_", " ") for code in codes)
    lines = [f"Warning: {text}." for text in said.values()]
    lines += [f"The measurement warns of: {words}."] if codes else []
    return "".join(f'<p class="warning">{escape(line)}</p>' for line in lines)


def _table(heads: Sequence[str], rows: Sequence[str], style: str = "numbers") -> str:
    head = "".join(f'<th scope="col">{name}</th>' if name else "<td></td>" for name in heads)
    body = "".join(rows)
    return f'<div class="wide"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cost_row(name: str, note: str, before: float | None, after: float | None, form: Callable[[float], str]) -> str:
    ratio = value(before / after if before and after else None, lambda number: f"{plain(number)}\u00d7")
    return _row(name, note, value(before, form), value(after, form), ratio)


def _row(name: str, note: str, *cells: str) -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<tr><th scope="row">{escape(name)}{small}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def channels(facts: RunFacts) -> str:
    """Return a bar for each channel group of the generator and, where it was pruned as well, the discriminator."""
    body = _groups(facts.plan, "Generator")
    if facts.discriminator is not None:
        body += _groups(facts.discriminator, "Discriminator", asked=False)  # has no budget to ask for
    lead = "<p>A bar is as long as its group is wide; the filled part stays.</p>"
    return section("channels", "Channels that stay", f'{lead}<div class="plans">{body}</div>')


def _groups(plan: Plan, name: str, *, asked: bool = True) -> str:
    largest = max((group.total for group in plan.groups), default=0)
    kept, total = sum(group.kept for group in plan.groups), sum(group.total for group in plan.groups)
    rows = "".join(
        f'<tr><th scope="row">{escape(group.name)}</th><td>{kept_bar(group.kept, group.total, largest)}</td>'
        f"<td>{group.kept:,} of {group.total:,}</td>"
        f'<td class="share">{percent(group.kept / group.total) if group.total and group.kept else "removed"}</td></tr>'
        for group in plan.groups
    )
    caption = (
        f"<strong>{escape(name)}</strong> {escape(network(plan))}: {kept:,} of {total:,} channels, "
        f"{percent(plan.budget_met)} of the MACs" + (f" ({percent(plan.budget)} asked for)" if asked else "")
    )
    return f'<table class="groups"><caption>{caption}</caption><tbody>{rows}</tbody></table>'


def quality(facts: RunFacts) -> str:
    """Return the table of quality."""
    found = facts.quality
    if found is None:
        return section("quality", "Quality", absent("This run has no quality.json: quality was not measured."))
    none = value(None, plain)
    psnr = "identical" if found.identical and found.psnr_to_original is None else value(found.psnr_to_original, decibel)
    ends = found.psnr_ci95
    spread = "" if ends is None else f"<small>{ends[0]:.2f} to {ends[1]:.2f}</small>"
    note = "higher is closer" + ("" if ends is None else "; 95\u00a0% interval below")
    rows = [_row("PSNR to the original", note, none, psnr + spread)]
    ssim = value(found.ssim_to_original, _ssim) + _ends(found.ssim_ci95, _ssim)
    rows.append(_row("SSIM to the original", "1 is equal", none, ssim))
    if found.psnr_to_truth is not None:
        rows.append(_pair_row("PSNR to the truth", "higher is closer", found.psnr_to_truth, decibel))
    if found.ssim_to_truth is not None:
        rows.append(_pair_row("SSIM to the truth", "1 is equal", found.ssim_to_truth, _ssim))
    rows += _distances(found)
    if found.miou is not None:
        best = "" if found.miou_real is None else f"; {found.miou_real:.3f} of the true photographs"
        rows.append(_pair_row("mIoU of the labels found in them", f"1 is equal{best}", found.miou, _ssim))
    if found.pixel_accuracy is not None:
        rows.append(_pair_row("Pixels with the right label", "", found.pixel_accuracy, percent))
    over = "" if found.pictures is None else f"<p>Measured on {found.pictures:,} {escape(tested(found))}.</p>"
    body = over + _table(("", "Original", "Compressed"), rows) + _finetuning(found)
    return section("quality", "Quality", body)


def _finetuning(found: Quality) -> str:
    """Return the table of what finetuning changed, apart from the other: it has other pictures, and a pooled PSNR."""
    before, after = found.psnr_before_finetuning, found.psnr_after_finetuning
    if before is None and after is None:
        return ""
    note = "from their squared error together, so not to be compared with the PSNR above"
    cells = (value(before, decibel), value(after, decibel))
    row = _row("PSNR to the original, held-out pictures", note, *cells)
    return _table(("", "Before finetuning", "After finetuning"), [row])


def _distances(found: Quality) -> list[str]:
    if not found.distances:
        reason = "not measured: no feature network was given"
        none = value(None, plain)
        return [_row("KID", reason, none, none), _row("Fr\u00e9chet distance", reason, none, none)]
    unknown = Pair(None, None)
    rows = []
    for one in found.distances:
        name = "FID" if one.metric == "fid" else "Fr\u00e9chet distance"
        few = f"not measured: {one.reason or 'it needs twice as many pictures as features'}"
        kid_note = "lower is better" if one.kid else "not measured" + (f": {one.kid_reason}" if one.kid_reason else "")
        rows.append(_pair_row(f"KID ({one.features})", kid_note, one.kid or unknown, plain))
        note = "lower is better" if one.frechet else few
        rows.append(_pair_row(f"{name} ({one.features})", note, one.frechet or unknown, plain))
    return rows


def _pair_row(name: str, note: str, pair: Pair, form: Callable[[float], str]) -> str:
    known = pair.original_ci95 is not None or pair.compressed_ci95 is not None
    return _row(
        name,
        note + ("; " if note and known else "") + ("95\u00a0% interval below" if known else ""),
        value(pair.original, form) + _spread(pair.original_std, pair.original_ci95, form),
        value(pair.compressed, form) + _spread(pair.compressed_std, pair.compressed_ci95, form),
    )


def _spread(std: float | None, ends: tuple[float, float] | None, form: Callable[[float], str]) -> str:
    if ends is not None:
        return _ends(ends, form)
    return "" if std is None else f"<small>\u00b1\u00a0{plain(std, 2)}</small>"


def _ends(ends: tuple[float, float] | None, form: Callable[[float], str]) -> str:
    return "" if ends is None else f"<small>{escape(form(ends[0]))} to {escape(form(ends[1]))}</small>"


def _ssim(number: float) -> str:
    return f"{number:.4f}".replace("-", "\u2212")


def artifacts(found: Sequence[Artifact]) -> str:
    """Return the table of the files that can be used, and of those that were refused, with the reason."""
    if not found:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(one.path)}</code></th>'
        + "".join(f"<td>{escape(text or DASH)}</td>" for text in (one.target, one.runtime, one.precision))
        + f"<td>{_verdict(one)}</td></tr>"
        for one in found
    )
    table = _table(("File", "Target", "Runtime", "Precision", "Accepted"), [rows], style="texts")
    return section("files", "Files to use", table)


def _verdict(one: Artifact) -> str:
    word = {True: "yes", False: "no", None: DASH}[one.accepted]
    return escape(word if one.reason is None else f"{word}: {one.reason}")
