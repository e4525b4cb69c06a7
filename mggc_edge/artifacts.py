"""Files that we write: whole or not at all, with a hash, and with a manifest that says where they came from."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mggc_edge._version import __version__
from mggc_edge.errors import ArtifactError, OutputError
from mggc_edge.tensors import TensorSpec

MANIFEST_FILE = "manifest.json"
SPEC_FILE, WEIGHTS_FILE = "spec.json", "weights.safetensors"  # a saved network is a folder with these two
MAX_DOCUMENT_BYTES = 256 * 2**20  # of a JSON document: raw samples and curves of long runs fit
METADATA_PREFIX = "mggc_edge."  # of our keys in the metadata of an ONNX file
MANIFEST_SCHEMA = "mggc-edge/manifest/1"
# The layout of a run folder, below `export/<target>/` and beside it.
GENERATOR_FILE, ORIGINAL_FILE = "generator.fp32.onnx", "original.fp32.onnx"
INT8_FILE = "generator.int8.onnx"  # in the place of GENERATOR_FILE where the network was trained on 8-bit grids
GENERATOR_FILES = {"fp32": GENERATOR_FILE, "int8": INT8_FILE}
PRECISIONS = ("fp32", "fp16", "int8")
PLAN_FILE, ORIGINAL_FOLDER, SLIM_FOLDER, EXPORT_FOLDER = "plan.json", "original", "slim", "export"
RECORD_FILE = f"{EXPORT_FOLDER}/exported.json"  # of `compress`: what became of every file that it exported
DISCRIMINATOR_PLAN_FILE, REPORT_FILE = "discriminator-plan.json", "report.html"
MEASUREMENTS = QUALITY_FILE, BENCH_FILE = "quality.json", "bench.json"  # made in the end, and can be made again
Precision = Literal["fp32", "fp16", "int8"]
FLOAT_IO, BYTES_IO = IO_KINDS = "float", "uint8"  # of a graph: what goes in and comes out
PORTABLE = "portable"  # target of graphs that are not rewritten for one target, and so run on any ONNX runtime
TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX file that we wrote.

    Attributes:
        path, sha256, size_bytes: the file as it lies on disk.
        inputs, outputs: names, types and shapes.
        precision: "fp32", "fp16" or "int8".
        parent_sha256: hash of the checkpoint (or artifact) that it was made from.
        settings: the settings that took effect.
    """

    path: Path
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    parent_sha256: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.sha256) != 64:
            raise ArtifactError(f"'{self.sha256}' is no sha256")
        if self.precision not in PRECISIONS:
            raise ArtifactError(f"'{self.precision}' is no precision", hint="fp32, fp16 or int8")

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return its entry in the manifest of the folder `root`."""
        return {
            **file_entry(self.path, root, parent=self.parent_sha256),
            "precision": self.precision,
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class EngineArtifact:
    """A TensorRT engine that we built. It runs on one kind of device, under one version of the library.

    Attributes:
        path, sha256, size_bytes: the file as it lies on disk.
        precision: of the ONNX file that it was built from.
        parent_sha256: hash of that file.
        device: name and compute capability.
        library_version: of TensorRT.
    """

    path: Path
    sha256: str
    size_bytes: int
    precision: str
    parent_sha256: str
    device: str
    library_version: str

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or len(self.parent_sha256) != 64:
            raise ArtifactError(f"'{self.sha256}' or '{self.parent_sha256}' is no sha256")
        if not self.device or not self.library_version:
            raise ArtifactError("an engine is for a device and a version of TensorRT, and both must be known")

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return its entry in the manifest of the folder `root`."""
        return {
            **file_entry(self.path, root, parent=self.parent_sha256),
            "precision": self.precision,
            "device": self.device,
            "tensorrt": self.library_version,
        }


def variant_path(fp32: Path, ending: str) -> Path:
    """Return the path beside `NAME.fp32.onnx` of the same network's `NAME.<ending>`, such as "int8.onnx"."""
    return fp32.with_name(f"{fp32.name.removesuffix('.fp32.onnx')}.{ending}")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def file_entry(path: Path, root: Path, parent: str | None = None) -> dict[str, Any]:
    """Return path (relative to `root`), hash, size in bytes and parent of a file, as a manifest holds them."""
    return {
        "path": path.relative_to(root).as_posix(),
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "parent": parent,
    }


def tool_versions() -> dict[str, str | None]:
    """Return the version of this package, of Python and of every library that takes part; None where not installed."""
    versions: dict[str, str | None] = {"mggc-edge": __version__, "python": platform.python_version()}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing `path` into an OutputError with a way out."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space, or choose a folder on another disk",
            errno.EDQUOT: "free some space, or choose a folder on another disk",
            errno.EROFS: "choose a folder that can be written",
            errno.EACCES: "choose a folder that you may write to",
            errno.EPERM: "choose a folder that you may write to",
        }
        reason = error.strerror or str(error)
        raise OutputError(f"'{path}' cannot be written: {reason}", hints.get(error.errno or 0)) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block ends well, else remove it.

    Raises:
        OutputError: the folder cannot be written; what was at `path` is then untouched.
    """
    temporary = _partial(path, path.parent)
    try:  # the name is known before the file exists: Ctrl-C may come between any two lines, and within any call
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
        with writing(path):
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        with contextlib.suppress(NotADirectoryError):  # `path` may lie below a file
            temporary.unlink(missing_ok=True)


def _partial(path: Path, folder: Path) -> Path:
    """Return a hidden name in `folder` that nobody else has, for what will be `path`."""
    return folder / f".{path.name}.{secrets.token_hex(8)}.partial"


def check_writable(path: Path) -> None:
    """Raise OutputError where no file can be put at `path`, before there is one; nothing is left behind.

    Where folders above it are missing, the one in which they would be made is tried.
    """
    with writing(path):
        temporary = _partial(path, next(place for place in path.absolute().parents if place.exists()))
    try:
        with writing(path):
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    finally:
        with contextlib.suppress(OSError):  # what could not be made cannot be removed
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`: the whole of it, or nothing.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; what was at `path` is then untouched.
    """
    with atomic_path(path) as temporary, writing(path):
        temporary.write_bytes(data)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document, atomically; NaN and Infinity are refused."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, text.encode("utf-8", "backslashreplace"))  # half a surrogate pair in a path stays readable


def read_json(path: Path, *, hint: str | None = None, max_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """Return the object of a JSON document that may come from anywhere, read within bounds.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: it is no file, larger than `max_bytes`, no JSON, or no object; `hint` is the way out.
    """
    try:
        if path.exists() and not path.is_file():
            raise ArtifactError(f"'{path}' cannot be read: it is no file", hint=hint)
        if path.stat().st_size > max_bytes:
            raise ArtifactError(f"'{path}' cannot be read: it is larger than {max_bytes / 2**20:g} MiB", hint=hint)
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}", hint=hint) from error
    if not isinstance(document, dict):
        raise ArtifactError(f"'{path}' is damaged: it holds no JSON object", hint=hint)
    return document


def check_output_folder(path: Path) -> None:
    """Refuse a folder that exists and has content.

    Raises:
        OutputError: `path` is a file, or a folder that is not empty, or no folder can be made there.
    """
    with writing(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"'{path}' is a file, not a folder", hint="choose another output folder")
        if path.is_symlink() and not path.exists():
            raise OutputError(f"'{path}' is a link that leads nowhere", hint="choose another output folder")
        for parent in path.parents:
            if parent.exists() and not parent.is_dir():
                raise OutputError(f"'{parent}' is a file, not a folder", hint="choose another output folder")
        if path.is_dir() and any(path.iterdir()):
            raise OutputError(
                f"'{path}' has other content, and nothing is overwritten", hint="choose a new or an empty folder"
            )


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder to write into; its content appears at `path` when the block ends well, else it is removed.

    Where `path` does not exist, the hidden folder lies beside it and is renamed. An empty folder at `path` stays (it
    may be a mount point, or where we stand): its new content is moved into it, the manifest last.

    Raises:
        OutputError: `path` exists and has content, or cannot be written.
    """
    check_output_folder(path)
    there = path.is_dir()
    with writing(path):
        parent = path if there else path.parent
        parent.mkdir(parents=True, exist_ok=True)
    stage = _partial(path, parent)
    try:  # as above
        with writing(path):
            stage.mkdir(mode=0o700)
        yield stage
        with writing(path):
            if there:
                for child in sorted(stage.iterdir(), key=lambda child: child.name == MANIFEST_FILE):
                    child.replace(path / child.name)
            else:
                stage.chmod(0o777 & ~_umask())
                stage.replace(path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def point_latest(run: Path, runs: Path) -> bool:
    """Make the link `latest` in the folder `runs` point to a run below it; return whether that was possible.

    It is not where somebody keeps a folder of that name, or where the file system knows no links.
    """
    link, temporary = runs / "latest", runs / f".latest.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return False
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run.relative_to(runs))
        temporary.replace(link)
    except OSError:
        return False
    return True


def write_manifest(
    root: Path, *, command: str, files: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], **facts: Any
) -> None:
    """Write `manifest.json` of the folder `root`: every file with hash and parent, tool versions, settings, `facts`."""
    write_json(
        root / MANIFEST_FILE,
        {
            "schema": MANIFEST_SCHEMA,
            "command": command,
            "tools": tool_versions(),
            "settings": dict(settings),
            "files": list(files),
            **facts,
        },
    )


def renew_entry(root: Path, path: Path) -> None:
    """Bring what the manifest of the folder `root` says of a file up to date, where it says anything of it.

    Raises:
        ArtifactError: the manifest is damaged.
        OutputError: it cannot be written.
    """
    document = read_manifest(root)
    entry = file_entry(path, root)
    files = [old if old.get("path") != entry["path"] else {**old, **entry} for old in document["files"]]
    if files != document["files"]:
        write_json(root / MANIFEST_FILE, {**document, "files": files})


def changed_file(root: Path, places: Sequence[str]) -> str | None:
    """Return the first file that the manifest of the folder `root` describes, and that is there with other bytes.

    Looked at are those at and below `places` in it. None: there is no such file.

    Raises:
        ArtifactError: the manifest is damaged.
    """
    for entry in read_manifest(root)["files"]:
        name = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or "\0" in name or ".." in Path(name).parts:
            continue
        if any(name == place or name.startswith(f"{place}/") for place in places):
            path = root / name
            if path.is_file() and sha256_of(path) != entry.get("sha256"):
                return name
    return None


def another_file(path: Path, hint: str) -> ArtifactError:
    """Return the error for a file that has other bytes than its manifest says."""
    return ArtifactError(f"'{path}' is not the file that the manifest describes: its hash differs", hint=hint)


def read_manifest(root: Path) -> dict[str, Any]:
    """Return the manifest of a run folder.

    Raises:
        ArtifactError: there is none, or it is damaged or of another kind.
    """
    path = root / MANIFEST_FILE
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise ArtifactError(f"'{root}' is no run folder: it has no {MANIFEST_FILE}") from None
    if not isinstance(document.get("files"), list) or document.get("schema") != MANIFEST_SCHEMA:
        raise ArtifactError(f"'{path}' is damaged, or not a manifest of mggc-edge")
    return document
