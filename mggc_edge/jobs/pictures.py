"""The pictures of a job: those that a user named, or built-in ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import sha256_of
from mggc_edge.errors import PictureError
from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.layers import Size
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.settings import Settings
from mggc_edge.training.folders import Folders, find_folders
from mggc_edge.training.material import Material, Reading, built_in, from_folders

Remember = Callable[[str, Any, str], None]


def _nothing(_name: str, _value: object, _what: str) -> None:
    """Remember nothing."""


MOST_NAMED = 10  # unreadable pictures; more are counted


def reading_for(settings: Settings, spec: NetworkSpec, size: Size, seed: int) -> Reading:
    """Return how pictures are read for a generator at a picture size."""
    scale = settings["data.view_scale"]
    return Reading(
        size=size,
        view_size=(math.ceil(size[0] * scale), math.ceil(size[1] * scale)),
        input_format=spec.input_format,
        output_format=spec.output_format,
        seed=seed,
        held_out=settings["data.held_out"],
        most_held_out=settings["data.max_held_out"],
        max_unreadable=settings["pictures.max_unreadable"],
        cache_bytes=settings["data.cache_bytes"],
    )


def read_material(
    settings: Settings,
    request: CompressRequest,
    spec: NetworkSpec,
    size: Size,
    seed: int,
    hooks: Hooks,
    remember: Remember = _nothing,
) -> Material:
    """Return the pictures that `compress` works on. `remember` is `Job.remember`.

    Raises:
        InputError: the folders contradict each other, or the pictures changed since the job was started.
        PictureError: there are no pictures, too few, or too many that cannot be read.
    """
    reading = reading_for(settings, spec, size, seed)
    if not request.has_pictures:
        hooks.tell("note: built-in pictures are used, and the original's outputs are all there is to learn from;")
        hooks.tell("      --source with pictures of your own gives better quality")
        _tell_of_partner(request, hooks)
        if request.layout is not None:
            hooks.tell("note: --layout is for pictures of your own, and is not used")
        return built_in(reading, settings["quick.pictures" if request.quick else "built_in.pictures"])
    folders = find_folders(
        data=None if request.data is None else Path(request.data),
        layout=request.layout,
        source=None if request.source is None else Path(request.source),
        target=None if request.target is None else Path(request.target),
        direction=request.direction,
    )
    material = read_folders(folders, reading, hooks, remember)
    if material.target is None:
        hooks.tell("note: without --target the slim generator learns from the original alone")
    elif material.objective == "unpaired" and request.partner is None:
        hooks.tell("note: without --partner, finetuning has no cycle and identity losses")
    if material.objective != "unpaired":
        _tell_of_partner(request, hooks)
    return material


def _tell_of_partner(request: CompressRequest, hooks: Hooks) -> None:
    if request.partner is not None:
        hooks.tell("note: --partner is used with unpaired pictures of both sides only")


def read_folders(folders: Folders, reading: Reading, hooks: Hooks, remember: Remember = _nothing) -> Material:
    """Read the pictures of a job, and check that they are those it was started with.

    Raises:
        InputError: they changed since.
        PictureError: there are too few, or too many that cannot be read.
    """
    remember("pictures", pictures_sha256(folders), "the pictures")
    hooks.tell("reading the pictures")
    unreadable = []

    def skipped(path: Path, error: PictureError) -> None:
        unreadable.append(path.name)
        if len(unreadable) <= MOST_NAMED:
            hooks.skipped(path, error)

    material = from_folders(folders, reading, on_unreadable=skipped, track=hooks.track)
    if unreadable:
        hooks.tell(f"{len(unreadable)} pictures could not be read and are left out")
    remember("unreadable", len(unreadable), "the pictures")
    return material


def pictures_sha256(folders: Folders) -> str:
    """Return a hash of the names and contents of all picture files of a job, in their order."""
    sides = (folders.source, folders.target, folders.test_source, folders.test_target)
    hashes: dict[Path, str] = {}  # both halves of a pair are one file
    digest = hashlib.sha256()
    for files in sides:
        for path in () if files is None else files.paths:
            if path not in hashes:
                try:
                    hashes[path] = sha256_of(path)
                except OSError:
                    hashes[path] = "unreadable"
            digest.update(f"{path.name}\0{hashes[path]}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()
