"""Every setting that has no flag of its own: name, default, unit, meaning and source, in one table."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mggc_edge.errors import SettingError

Value = bool | int | float | str


@dataclass(frozen=True)
class Setting:
    """One setting. Its type is its default's; `low` and `high` bound numbers, both included."""

    name: str
    default: Value
    unit: str
    meaning: str
    source: str = "ours"
    low: float | None = None
    high: float | None = None
    multiple_of: int = 1

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


SETTINGS: tuple[Setting, ...] = (
    Setting("checkpoint.max_bytes", 4 * 2**30, "bytes", "a larger checkpoint file is refused", low=1),
    Setting("demo.budget", 0.25, "fraction of MACs", "what the demo's plan keeps", low=0.01, high=1),
    Setting("demo.image_size", 128, "pixels", "side of the demo's pictures", low=32, high=512, multiple_of=4),
    Setting("demo.ngf", 16, "channels", "first width of the demo's generator", low=4, high=64),
    Setting(
        "export.atol", 1e-4, "output values, -1 to 1", "largest difference from torch that an export may show", low=0
    ),
    Setting("export.opset", 20, "version", "ONNX operators that are written", "torch.onnx's default", low=18, high=23),
    Setting("export.parity_pictures", 2, "pictures", "random pictures on which an export is proven equal", low=1),
    Setting("export.simplify", True, "", "run onnxsim on the exported graph"),
    Setting(
        "pictures.max_unreadable", 0.05, "fraction", "more unreadable pictures than this are an error", low=0, high=1
    ),
    Setting("translate.sheet_pictures", 8, "pictures", "rows of the contact sheet; 0: no sheet", low=0, high=64),
    Setting("verify.atol", 1e-4, "output values, -1 to 1", "largest difference that passes", low=0),
    Setting("verify.pictures", 4, "pictures", "built-in pictures that are compared on without --images", low=1),
)
_BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


class Settings:
    """The settings in effect: defaults, over them a TOML file, over that single values."""

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._values: dict[str, Value] = {setting.name: setting.default for setting in SETTINGS}
        for name, value in (values or {}).items():
            self._values[name] = _named(name).parse(value)

    @classmethod
    def load(cls, config: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
        """Read a TOML file, whose tables are the parts of the names, and then `NAME=VALUE` texts.

        Raises:
            SettingError: the file cannot be read, or a name or a value is impossible.
        """
        values: dict[str, object] = {} if config is None else _flatten(_read_toml(config))
        for text in overrides:
            name, equals, value = text.partition("=")
            if not equals:
                raise SettingError(f"'{text}' sets nothing", hint="write NAME=VALUE")
            values[name.strip()] = value.strip()
        return cls(values)

    def with_value(self, name: str, value: object) -> Settings:
        """Return the same settings with another value for one; None changes nothing."""
        return self if value is None else Settings({**self._values, name: value})

    def __getitem__(self, name: str) -> Any:
        return self._values[_named(name).name]

    def to_json(self) -> dict[str, Value]:
        """Return every setting's value by name."""
        return dict(self._values)


def _named(name: str) -> Setting:
    if name not in _BY_NAME:
        import difflib

        close = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {close[0]}?" if close else "`mggc-edge settings` lists all"
        raise SettingError(f"there is no setting '{name}'", hint=hint)
    return _BY_NAME[name]


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        if not path.is_file():
            raise SettingError(f"there is no file '{path}'")
        # utf-8-sig: some editors begin a file with a byte order mark
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingError(f"'{path}' is not a TOML file: {error}") from error
    return values


def _flatten(table: Mapping[str, Any]) -> dict[str, object]:
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
