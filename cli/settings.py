"""`mggc-edge settings`: every setting, with default, unit and source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mggc_edge.cli.options import Config, Json, OutputFile, Set, load_settings
from mggc_edge.cli.output import Output

if TYPE_CHECKING:
    from mggc_edge.settings import Setting


def _origin(setting: Setting) -> str:
    return ", ".join(part for part in (setting.unit, f"source: {setting.source}") if part)


def settings(
    context: typer.Context, as_json: Json = False, output: OutputFile = None, config: Config = None, set_: Set = None
) -> None:
    """List every setting with value, unit and source; change one with --set NAME=VALUE on any command that has it."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from mggc_edge.settings import SETTINGS

    out: Output = context.obj
    values = load_settings(config, set_)
    document = {
        "schema": "mggc-edge/settings/1",
        "settings": [
            {
                "name": setting.name,
                "value": values[setting.name],
                "default": setting.default,
                "unit": setting.unit or None,
                "meaning": setting.meaning,
                "source": setting.source,
            }
            for setting in SETTINGS
        ],
    }
    if out.document(document, as_json=as_json, file=output):
        return
    page = Table(box=box.SIMPLE, pad_edge=False)
    page.add_column("setting", no_wrap=True)
    page.add_column("value", no_wrap=True)
    page.add_column("meaning")
    for setting in SETTINGS:
        value = values[setting.name]
        text = (
            str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
        )
        changed = "" if value == setting.default else f", default {setting.default}"
        page.add_row(setting.name, text, f"{setting.meaning} [dim]({escape(_origin(setting))}{changed})[/]")
    out.result(page)
