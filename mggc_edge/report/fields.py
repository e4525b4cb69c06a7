"""Documents that others wrote: read within bounds, and every value of the type that it should have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mggc_edge.artifacts import read_json
from mggc_edge.errors import ArtifactError

MAX_TEXT = 4000


class Fields:
    """The object of a JSON document, whose values are asked for by type.

    A value that is absent or null is None; one of another type makes an ArtifactError that names the file and the key.

    Args:
        values: the object.
        path: the file that it came from, for messages.
        inside: the keys that lead to it, such as "original.".
    """

    def __init__(self, values: Mapping[str, Any], path: Path, inside: str = "") -> None:
        self._values = values
        self._path = path
        self._inside = inside

    def damaged(self, what: str) -> NoReturn:
        """Raise the ArtifactError that says what is wrong with this document."""
        raise ArtifactError(f"'{self._path}' is damaged: {what}")

    def number(self, key: str) -> float | None:
        """Return a finite number."""
        value = self._values.get(key)
        if value is None:
            return None
        return self._number(value, key)

    def needed_number(self, key: str) -> float:
        """Return a finite number that must be there."""
        value = self.number(key)
        return self.damaged(f"'{self._inside}{key}' is missing") if value is None else value

    def flag(self, key: str) -> bool | None:
        """Return true or false."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            self.damaged(f"'{self._inside}{key}' is neither true nor false")
        return value

    def text(self, key: str) -> str | None:
        """Return a text, cut after MAX_TEXT characters."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.damaged(f"'{self._inside}{key}' is no text")
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]} ..."

    def fields(self, key: str) -> Fields | None:
        """Return an object."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.damaged(f"'{self._inside}{key}' is no object")
        return Fields(value, self._path, f"{self._inside}{key}.")

    def list(self, key: str) -> tuple[Any, ...]:
        """Return the values of a list; none where it is absent."""
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.damaged(f"'{self._inside}{key}' is no list")
        return tuple(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return the finite numbers of a list; none where it is absent."""
        return tuple(self._number(value, key) for value in self.list(key))

    def objects(self, key: str) -> tuple[Fields, ...]:
        """Return the objects of a list; none where it is absent."""
        values = self.list(key)
        if not all(isinstance(value, dict) for value in values):
            self.damaged(f"'{self._inside}{key}' is no list of objects")
        return tuple(Fields(value, self._path, f"{self._inside}{key}.") for value in values)

    def interval(self, key: str) -> tuple[float, float] | None:
        """Return the two ends of an interval, the lower one first."""
        ends = self.numbers(key)
        if not ends:
            return None
        if len(ends) != 2 or ends[0] > ends[1]:
            self.damaged(f"'{self._inside}{key}' is no interval")
        return ends[0], ends[1]

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield every key with its value, of whatever type."""
        yield from self._values.items()

    def _number(self, value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.damaged(f"'{self._inside}{key}' is no number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.damaged(f"'{self._inside}{key}' is no finite number")
        return number


def read_fields(path: Path, schema: str) -> Fields | None:
    """Return the document of a JSON file, None where there is no such file.

    Raises:
        ArtifactError: the file is larger than 256 MiB, cannot be read, or is no object with this schema.
    """
    if not path.exists():
        return None
    document = read_json(path)
    if document.get("schema") != schema:
        raise ArtifactError(f"'{path}' is damaged: its schema is not '{schema}'")
    return Fields(document, path)
