"""Which file of a run folder is meant: the one that this machine runs, or the network that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mggc_edge.artifacts import (
    GENERATOR_FILES,
    ORIGINAL_FOLDER,
    PORTABLE,
    SLIM_FOLDER,
    SPEC_FILE,
    WEIGHTS_FILE,
    another_file,
    changed_file,
    read_manifest,
    sha256_of,
)
from mggc_edge.backends.registry import RUNTIMES
from mggc_edge.errors import ArtifactError
from mggc_edge.pictures import Size

TRAINED = ("latest_net_G.pth", "latest_net_G_A.pth")  # what a folder of `train` has, and of the well-known code


def trained_hint(folder: Path) -> str | None:
    """Return a hint that names the generator's checkpoint in a folder of a training, None where there is none."""
    for name in TRAINED:
        if (folder / name).is_file():
            return f"name the checkpoint in it: {folder / name}"
    return None


def run_artifact(folder: Path, runtime: str | None = None) -> Path:
    """Return the generator's file of a run folder that this machine is to run.

    It is the one for this machine's target, where the run has that, else the portable one, else that of the first
    target; and where an engine has graphs of its own, the engine's.

    Args:
        folder: of the run.
        runtime: a key of `mggc_edge.backends.registry.RUNTIMES`; None: whatever runs ONNX files.

    Raises:
        ArtifactError: the manifest names none, or the file is not there or has changed.
    """
    from mggc_edge.compiler.targets import this_target

    manifest = read_manifest(folder)
    ending = ".onnx" if runtime is None or runtime not in RUNTIMES else RUNTIMES[runtime].ending
    generators = [str(Path(file).with_suffix(ending)) for file in GENERATOR_FILES.values()]
    found: dict[tuple[int, int], tuple[Path, Any]] = {}
    for entry in manifest["files"]:
        name = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or Path(name).name not in generators or "/" not in name:
            continue
        path = _inside(folder, name)
        parts = Path(name).parts[:-1]  # export, target, perhaps engine
        targets = [index for index, target in enumerate((this_target(), PORTABLE)) if target in parts[1:2]]
        engine = parts[2] if len(parts) > 2 else None
        if engine in (None, runtime):
            found.setdefault((targets[0] if targets else 2, engine is None), (path, entry.get("sha256")))
    if found:
        path, sha256 = found[min(found)]
        if not path.is_file():
            raise ArtifactError(f"'{path}' is named in the manifest, but it is not there")
        if sha256_of(path) != sha256:
            raise another_file(path, "export again, or open the file itself if you trust it")
        return path
    if manifest.get("command") == "train":
        raise ArtifactError(f"'{folder}' is a run of `train` and has no exported generator", trained_hint(folder))
    if ending != ".onnx":
        raise ArtifactError(f"the run '{folder}' has no {ending} file", hint="mggc-edge export --runtime writes one")
    raise ArtifactError(f"the run '{folder}' has no exported generator")


def run_network(folder: Path) -> tuple[Path, Size | None]:
    """Return the saved network of a run folder, slim if it has been slimmed, and the picture size of the run.

    Raises:
        ArtifactError: the run has none, its files are not those of its manifest, or that is damaged.
    """
    manifest = read_manifest(folder)
    settings = manifest.get("settings")
    size = settings.get("image_size") if isinstance(settings, dict) else None
    sides = [side for side in size if type(side) is int and side > 0] if isinstance(size, list) else []
    for name in (SLIM_FOLDER, ORIGINAL_FOLDER):
        if (folder / name / SPEC_FILE).is_file():
            changed = changed_file(folder, (f"{name}/{SPEC_FILE}", f"{name}/{WEIGHTS_FILE}"))
            if changed is not None:
                raise another_file(folder / changed, f"name the folder itself if you trust it: {folder / name}")
            return folder / name, (sides[0], sides[1]) if len(sides) == 2 else None
    if manifest.get("command") == "train":
        raise ArtifactError(f"'{folder}' is a run of `train`, with checkpoints", trained_hint(folder))
    raise ArtifactError(f"the run '{folder}' has no saved network", hint="export the checkpoint that it was made from")


def _inside(folder: Path, name: str) -> Path:
    """Return the place of a file that a manifest names; ArtifactError where that is not in its folder."""
    try:
        path = (folder / name).resolve()
        inside = path.is_relative_to(folder.resolve())
        path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, with a zero in it, or a loop of links
        raise ArtifactError(f"the manifest of '{folder}' names a file that cannot be: {error}") from error
    if not inside:
        raise ArtifactError(f"the manifest of '{folder}' names a file outside the folder")
    return path
