"""report.html: the facts of a run as one file that needs nothing else, and no network."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from mggc_edge.artifacts import REPORT_FILE, atomic_write
from mggc_edge.report.facts import RunFacts
from mggc_edge.report.reading import read_run
from mggc_edge.report.sections import artifacts, channels, costs, pictures, quality, tiles
from mggc_edge.report.stages import curves, details
from mggc_edge.report.words import headline, title


def build_report(run: Path) -> Path:
    """Write `report.html` into a run folder, whole or not at all, and return its path.

    Raises:
        ArtifactError: `run` is no run folder, has no plan, or a file in it is damaged.
        OutputError: the folder cannot be written.
    """
    path = run / REPORT_FILE
    atomic_write(path, render(read_run(run)).encode("utf-8"))
    return path


def render(facts: RunFacts) -> str:
    """Return the page about a run: equal facts give equal text.

    Styles, script and pictures are part of it. A policy in its head lets the browser load nothing else, and run no
    script but the one whose hash it names.
    """
    style, script = _part("page.css"), _part("page.js")
    page = Template(_part("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(title(facts)),
        style=style,
        script=script,
        run=escape(facts.name),
        headline=escape(headline(facts)),
        tiles=tiles(facts),
        command=_command(facts),
        body="".join(
            (
                pictures(facts.samples),
                costs(facts),
                quality(facts),
                channels(facts),
                curves(facts),
                artifacts(facts.artifacts),
                details(facts),
            )
        ),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a name becomes a question mark


def _command(facts: RunFacts) -> str:
    if not facts.command_line:
        return ""
    words = " ".join(f"<span>{escape(word)}</span>" for word in facts.command_line.split(" "))
    return (
        f'<div class="command"><code id="command">{words}</code>'
        '<button type="button" id="copy" hidden>Copy</button></div>'
    )


def _policy(style: str, script: str) -> str:
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _part(name: str) -> str:
    return resources.files("mggc_edge.report").joinpath(name).read_text(encoding="utf-8")
