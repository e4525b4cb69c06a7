"""One setting: its type, its bounds, and how its value is read from a text or a TOML file."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mggc_edge.errors import InputError, SettingError

Value = bool | int | float | str


@dataclass(frozen=True)
class Setting:
    """One setting. Its type is its default's; `low` and `high` bound numbers, both included; `choices` texts."""

    name: str
    default: Value
    unit: str
    meaning: str
    source: str = "ours"
    low: float | None = None
    high: float | None = None
    multiple_of: int = 1
    choices: tuple[str, ...] = ()

    def parse(self, value: object) -> Value:
        """Return `value`, a TOML value or the text after `--set NAME=`, as this setting's type.

        Raises:
            SettingError: it is of another type, or out of bounds.
        """
        kind = type(self.default)
        parsed: Value | None = None
        try:
            if isinstance(value, str) and kind is not str:
                parsed = _from_text(value, kind)
            elif isinstance(value, bool) == (kind is bool) and isinstance(
                value, (kind, int) if kind is float else kind
            ):
                parsed = kind(value)
        except OverflowError:
            parsed = None
        if parsed is None or (isinstance(parsed, float) and not math.isfinite(parsed)):
            wanted = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[kind]
            raise SettingError(f"setting {self.name} must be {wanted}, not {_shown(value)}")
        if not isinstance(parsed, str | bool) and not (
            (self.low is None or parsed >= self.low) and (self.high is None or parsed <= self.high)
        ):
            bounds = f"at least {self.low:g}" + ("" if self.high is None else f" and at most {self.high:g}")
            raise SettingError(f"setting {self.name} must be {bounds}, not {_shown(parsed)}")
        if self.choices and parsed not in self.choices:
            raise SettingError(f"setting {self.name} must be one of {', '.join(self.choices)}, not {_shown(parsed)}")
        if self.multiple_of > 1 and isinstance(parsed, int) and parsed % self.multiple_of:
            raise SettingError(f"setting {self.name} must be a multiple of {self.multiple_of}, not {_shown(parsed)}")
        return parsed


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _from_text(text: str, kind: type[Value]) -> Value | None:
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        return kind(text)
    except ValueError:
        return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        if not path.is_file():
            raise InputError(f"there is no file '{path}'")
        # utf-8-sig: some editors begin a file with a byte order mark
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not a TOML file: {error}") from error
    return values


def flatten(table: Mapping[str, Any]) -> dict[str, object]:
    """Return the values of nested tables by their dotted names."""
    values: dict[str, object] = {}
    tables = [("", table)]
    while tables:
        prefix, current = tables.pop()
        for key, value in current.items():
            if isinstance(value, Mapping):
                tables.append((f"{prefix}{key}.", value))
            else:
                values[f"{prefix}{key}"] = value
    return values
