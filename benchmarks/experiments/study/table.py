"""A study as a table: what is asked, the rows that differ in a few flags, and the seeds that all rows share."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mggc_edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STUDIES = Path(__file__).parent.parent / "studies"
# In flags: the folder with data/ and weights/, and one with originals that `mggc-edge train` made.
DATA, TRAINED = "$DATA", "$TRAINED"
PREVIOUS = "previous"  # `compare`: every row with the one before it
MAX_RUNS = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
# What the runner itself gives to every run.
_OWN = ("--seed", "--out", "--resume", "--json", "--output", "--config")


@dataclass(frozen=True)
class Row:
    """One line of a study: its own flags of `mggc-edge compress`, beside those that all rows share."""

    name: str
    title: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One cell of a study: a row with a seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, and on the command line."""
        return f"{self.row.name}-{self.seed}"


@dataclass(frozen=True)
class Study:
    """A table of runs.

    Attributes:
        name: of its results.
        title, text: a heading, and what is asked, for the page.
        base: flags that all rows share.
        rows, seeds: every row runs with every seed.
        compare: the row that all others are compared with, or several with commas; "previous": each with the one
            before; None: none.
        curves: keep the losses of the pruning stage with every run.
        probability: a class of the feature network, whose mean probability is measured.
    """

    name: str
    title: str
    text: str
    base: tuple[str, ...]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    compare: str | None = None
    curves: bool = False
    probability: int | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every cell, all rows of a seed before the next seed: a study that is cut short still compares."""
        return tuple(Run(row, seed) for seed in self.seeds for row in self.rows)

    def flags(self, run: Run) -> tuple[str, ...]:
        """Return the flags of `mggc-edge compress` for a run, with DATA and TRAINED for folders."""
        return (*self.base, *run.row.flags, "--seed", str(run.seed))

    def row(self, name: str) -> Row:
        """Return a row; raises InputError where there is none of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"the study {self.name} has no row '{name}'", f"one of {', '.join(r.name for r in self.rows)}")

    def pairs(self) -> tuple[tuple[Row, Row], ...]:
        """Return which rows are compared: (row, the one it is compared with)."""
        if self.compare is None:
            return ()
        if self.compare == PREVIOUS:
            return tuple(zip(self.rows[1:], self.rows[:-1], strict=True))
        chosen = [self.row(name.strip()) for name in self.compare.split(",")]
        return tuple((row, other) for row in chosen for other in self.rows if other is not row)


def find_study(name: str) -> Path:
    """Return the file of a study: `name` is a path, or the name of one in studies/.

    Raises:
        InputError: there is none.
    """
    for path in (Path(name), STUDIES / f"{name}.toml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in STUDIES.glob("*.toml")))
    raise InputError(f"there is no study '{name}'", hint=f"a TOML file, or one of {known}")


def read_study(path: Path) -> Study:
    """Read a study from a TOML file.

    Raises:
        InputError: it is not TOML, or makes no sense as a study.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the study '{path}' cannot be read: {error}") from error
    try:
        study = _study(path.stem, document)
        study.pairs()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"the study '{path}' makes no sense: {type(error).__name__}: {error}") from error
    return study


def _study(name: str, document: Mapping[str, Any]) -> Study:
    unknown = set(document) - {"title", "text", "base", "seeds", "rows", "compare", "curves", "probability"}
    if unknown:
        raise InputError(f"the study {name} has unknown keys: {', '.join(sorted(unknown))}")
    rows = tuple(Row(row["name"], row.get("title", row["name"]), _flags(row["flags"])) for row in document["rows"])
    seeds = tuple(document["seeds"])
    names = [row.name for row in rows]
    for one in (name, *names):
        if _NAME.fullmatch(one) is None:
            raise InputError(f"'{one}' is no name for a study or a row", "small letters, digits and . _ + -")
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise InputError(f"the study {name} names a row or a seed twice")
    if not rows or not seeds or any(isinstance(seed, bool) or not isinstance(seed, int) for seed in seeds):
        raise InputError(f"the study {name} needs rows, and whole numbers as seeds")
    if len(rows) * len(seeds) > MAX_RUNS:
        raise InputError(f"the study {name} has more than {MAX_RUNS:,} runs")
    probability = document.get("probability")
    if probability is not None and (type(probability) is not int or probability < 0):
        raise InputError(f"the study {name} needs the number of a class as probability")
    if probability is not None and "--feature-net" not in _flags(document["base"]):
        raise InputError(f"the study {name} measures a probability, which needs --feature-net in its base")
    return Study(
        name=name,
        title=str(document["title"]),
        text=str(document["text"]).strip(),
        base=_flags(document["base"]),
        rows=rows,
        seeds=seeds,
        compare=document.get("compare"),
        curves=bool(document.get("curves", False)),
        probability=probability,
    )


def _flags(text: str) -> tuple[str, ...]:
    """Split flags as a shell does."""
    flags = tuple(shlex.split(text))
    for flag in flags:
        if flag.partition("=")[0] in _OWN:
            raise InputError(f"{flag} is not for a study's flags: the runner gives it")
    return flags


def with_folders(flags: tuple[str, ...], folders: Mapping[str, Path]) -> list[str]:
    """Return flags with the real folders in the places of their names, such as DATA.

    Raises:
        InputError: one of the names has no folder.
    """
    for name in (DATA, TRAINED):
        if name not in folders and any(name in flag for flag in flags):
            raise InputError(f"the study needs a folder for {name}", hint=f"--{name[1:].lower()} FOLDER")
    found = list(flags)
    for name, folder in folders.items():
        found = [flag.replace(name, str(folder)) for flag in found]
    return found


def without_folders(value: Any, folders: Mapping[str, Path]) -> Any:
    """Return a JSON value with names in the places of the real folders: results name no place on this machine."""
    if isinstance(value, str):
        for name, folder in folders.items():
            if str(folder) != ".":
                value = value.replace(str(folder.resolve()), name).replace(str(folder), name)
        return value
    if isinstance(value, Mapping):
        return {key: without_folders(part, folders) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part, folders) for part in value]
    return value
