"""`mggc-edge settings`: every setting, with default, unit and source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from mggc_edge.cli.options import Config, Json, OutputFile, Preset, Set, load_settings
from mggc_edge.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.presets import Default
    from mggc_edge.presets import Preset as ChosenPreset
    from mggc_edge.settings import Settings


def settings(
    context: typer.Context,
    preset: Preset = None,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """List every setting with value, unit and source; change one with --set NAME=VALUE on any command that has it.

    With --preset, list what an experiment of the paper sets.
    """
    from mggc_edge.presets import preset_named
    from mggc_edge.settings import SETTINGS

    out: Output = context.obj
    values = load_settings(config, set_, preset)
    chosen = None if preset is None else preset_named(preset)
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
        "preset": None if chosen is None else _preset_document(chosen),
    }
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            out.result(_page(values, chosen))


def _preset_document(preset: ChosenPreset) -> dict[str, Any]:
    def listed(defaults: Sequence[Default]) -> list[dict[str, Any]]:
        return [{"name": each.name, "value": each.value, "source": each.source} for each in defaults]

    return {
        "name": preset.name,
        "about": preset.about,
        "flags": listed(preset.flags),
        "settings": listed(preset.settings),
        "layers": listed([preset.layers])[0],
    }


def _page(values: Settings, preset: ChosenPreset | None) -> RenderableType:
    """Return the table of all settings, or of what a preset says."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from mggc_edge.settings import SETTINGS

    page = Table(box=box.SIMPLE, pad_edge=False)
    page.add_column("flag or setting" if preset else "setting", no_wrap=True)
    page.add_column("value", no_wrap=True)
    page.add_column("meaning")
    said = {} if preset is None else {each.name: each for each in preset.settings}
    if preset is not None:
        page.title, page.title_justify = f"preset {preset.name}: {preset.about}", "left"
        for flag in preset.flags:
            name = f"--{flag.name.replace('_', '-')}"
            page.add_row(name, str(flag.value), f"[dim](source: {escape(flag.source)})[/]")
    for setting in SETTINGS:
        if preset is not None and setting.name not in said:
            continue
        value, its = values[setting.name], said.get(setting.name)
        origin = [part for part in (setting.unit, f"source: {its.source if its else setting.source}") if part]
        if its is not None and value != its.value:
            origin.append(f"preset {_text(its.value)}")
        if value != setting.default:
            origin.append(f"default {setting.default}")
        page.add_row(setting.name, _text(value), f"{setting.meaning} [dim]({escape(', '.join(origin))})[/]")
    if preset is not None:
        layers = preset.layers
        page.add_row(layers.name, "", f"{escape(str(layers.value))} [dim](source: {escape(layers.source)})[/]")
    return page


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
