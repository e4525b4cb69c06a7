"""Files that were sent to a device, kept under the hash of what is in them: nothing is sent twice.

A file lands under a temporary name and gets its own once its hash was checked here. What a session does not need goes,
the oldest first, as far as the rest is larger than a bound. Nothing else in the folder is ever touched.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})\.(onnx|ort|engine|zip|pyz)")
ENGINES = re.compile(r"[0-9a-f]{64}-engines")  # of a bundle, which goes before them
# The agent's own names and no others: the folder is the user's choice, and may hold a work-2024 of theirs.
TEMPORARY = re.compile(rf"part-\d+-(agent|{NAME.pattern})|work-\d+-agent")
KEPT_BYTES = 2 * 2**30
IN_USE_SECONDS = 3600.0  # what was asked for since then may be another session's
STALE_SECONDS = 86400.0  # a temporary name that is older was left by a session that was killed
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK = 2**20


class StoreError(Exception):
    """What the device does not allow: an error kind ("full", "changed", "store") and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Store:
    """The files of one session, and those that earlier ones left.

    Args:
        folder: where they lie; it is there.
        needed: names of files that this session needs.
        kept_bytes: of files that it does not need.

    Attributes:
        work: a folder for what the session's processes write; gone after `close`.

    Raises:
        StoreError: nothing can be written there.
    """

    def __init__(self, folder: Path, needed: Sequence[str] = (), kept_bytes: int = KEPT_BYTES) -> None:
        self.folder, self._kept_bytes = folder, kept_bytes
        self.work = folder / f"work-{os.getpid()}-agent"
        self._parts: dict[str, Path] = {}
        self._needed = set(needed)
        self._clean()
        with self._errors():
            self.work.mkdir(mode=0o700, exist_ok=True)

    def missing(self, files: Sequence[tuple[str, int]]) -> list[str]:
        """Return which of these files, given as name and bytes, are not here yet, and make room for them.

        A file whose hash is no longer the one in its name is removed, and is missing.

        Raises:
            StoreError: the disk has not so much room.
        """
        lacking = []
        for name, size in files:
            path = self._path(name)
            if _sha256(path) == _hash(name):
                with contextlib.suppress(OSError):
                    os.utime(path)
            else:
                with self._errors():
                    path.unlink(missing_ok=True)
                lacking.append((name, size))
            self._needed.add(name)
        self._prune()
        wanted, free = sum(size for _, size in lacking), shutil.disk_usage(self.folder).free
        if wanted > free:
            raise StoreError("full", f"'{self.folder}' has {free:,} bytes left, and {wanted:,} are needed")
        return [name for name, _ in lacking]

    def put(self, name: str, data: bytes) -> int:
        """Add bytes to a file that is being sent; return how many there are now.

        Raises:
            StoreError: they cannot be written; the file has to be sent from its beginning.
        """
        _hash(name)
        begins = name not in self._parts  # then what lies there is of a process of old that had the same number
        part = self._parts.setdefault(name, self.folder / f"part-{os.getpid()}-{name}")
        try:
            with self._errors(), part.open("wb" if begins else "ab") as file:
                file.write(data)
                return file.tell()
        except StoreError:
            self._drop(name)
            raise

    def keep(self, name: str) -> None:
        """Give a file that was sent its name.

        Raises:
            StoreError: what came is not what the name says.
        """
        wanted, part = _hash(name), self._parts.get(name)
        if part is None or _sha256(part) != wanted:
            self._drop(name)
            raise StoreError("changed", f"what came as '{name}' is something else")
        with self._errors():
            part.replace(self._path(name))
        del self._parts[name]

    def read(self, name: str, offset: int, most: int) -> bytes:
        """Return so many bytes at most of a file in the work folder.

        Raises:
            StoreError: it cannot be read.
        """
        with self._errors(), (self.work / Path(name).name).open("rb") as file:
            file.seek(offset)
            return file.read(most)

    def close(self) -> None:
        """Remove what was temporary."""
        for name in list(self._parts):
            self._drop(name)
        shutil.rmtree(self.work, ignore_errors=True)

    def _path(self, name: str) -> Path:
        _hash(name)
        return self.folder / name

    def _drop(self, name: str) -> None:
        part = self._parts.pop(name, None)
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()

    def _prune(self) -> None:
        """Remove the oldest files beyond the bound, none that this session or a recent one asked for."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if NAME.fullmatch(path.name) and path.name not in self._needed:
                    with contextlib.suppress(OSError):
                        facts = path.stat()
                        found.append((facts.st_mtime, facts.st_size, path))
        left, now = sum(size for _, size, _ in found), time.time()
        for changed, size, path in sorted(found):
            if left <= self._kept_bytes or now - changed < IN_USE_SECONDS:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                left -= size

    def _clean(self) -> None:
        """Remove what killed sessions left."""
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                if ENGINES.fullmatch(path.name) and not path.with_name(f"{path.name[:64]}.zip").exists():
                    shutil.rmtree(path, ignore_errors=True)
                if TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > STALE_SECONDS:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise StoreError("full", f"'{self.folder}' cannot take more: {error.strerror}") from error
            raise StoreError("store", f"'{self.folder}' cannot be used: {error.strerror}") from error


def _hash(name: str) -> str:
    match = NAME.fullmatch(name)
    if match is None:
        raise StoreError("store", "a name that is no hash")
    return match["sha256"]


def _sha256(path: Path) -> str | None:
    """Return the hash of a file; None where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                found.update(chunk)
    except OSError:
        return None
    return found.hexdigest()
