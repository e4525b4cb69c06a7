"""The commands of the program: what each is called, and what a list of them says, without loading a single one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import typer

# Each is the function of its own name in the module of its own name, whose docstring begins with these words.
SUMMARIES = {
    "compress": "Compress a generator: prune (by MGGC), slim, finetune, export, and measure it against the original.",
    "train": "Train generators and discriminators by the recipe of CycleGAN or pix2pix, as an original to compress.",
    "inspect": "Show what a file is: family, layers, channel groups, parameters, MACs in both conventions.",
    "export": "Export a generator to ONNX and prove it equal to torch, after slimming it where --plan says how.",
    "verify": "Run the same pictures through two artifacts and compare what comes out; exit code 3 if they differ.",
    "translate": "Translate a folder of pictures; each result is a PNG file, and a contact sheet shows the first ones.",
    "bench": "Measure latency, memory and MACs in fresh processes, and say what the samples allow to say.",
    "report": "Write report.html into a run folder: one offline page of pictures, latency, MACs, channels and curves.",
    "settings": "List every setting with value, unit and source; change one with --set NAME=VALUE on any command that "
    "has it.",
    "doctor": "Show this machine, its engines and libraries, what each does with which precision, and why not.",
    "demo": "Train a small generator, compress it, and see its quality come back; nothing is needed but this package.",
}


def load(name: str) -> Callable[..., Any]:
    """Return the function of a command, and with it everything that its flags need."""
    command: Callable[..., Any] = getattr(importlib.import_module(f"mggc_edge.cli.{name}"), name)
    return command


def asked_for(words: Sequence[str]) -> str | None:
    """Return the command that a command line begins with; None where it names none. Flags before it take no value."""
    first = next((word for word in words if not word.startswith("-")), None)
    return first if first in SUMMARIES else None


def add(app: typer.Typer, loaded: Sequence[str]) -> None:
    """Give a program all commands. Those that are not to be loaded can be listed, and take nothing."""
    for name, summary in SUMMARIES.items():
        if name in loaded:
            app.command(name)(load(name))
        else:
            app.command(name, help=summary)(_not_loaded)


def _not_loaded() -> None:
    raise RuntimeError("a command ran that was not loaded")
