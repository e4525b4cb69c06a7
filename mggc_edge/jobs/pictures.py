"""The pictures of a job: those that a user named, or built-in ones."""

from __future__ import annotations

import math
from pathlib import Path

from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.layers import Size
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.pictures import PictureFormat
from mggc_edge.settings import Settings
from mggc_edge.training.folders import find_folders
from mggc_edge.training.material import Material, Reading, built_in, from_folders


def reading_for(settings: Settings, spec: NetworkSpec, size: Size, seed: int) -> Reading:
    """Return how pictures are read for a generator at a picture size."""
    scale = settings["data.view_scale"]
    return Reading(
        size=size,
        view_size=(math.ceil(size[0] * scale), math.ceil(size[1] * scale)),
        input_format=PictureFormat.for_channels(spec.in_channels),
        output_format=PictureFormat.for_channels(spec.out_channels),
        seed=seed,
        held_out=settings["data.held_out"],
        most_held_out=settings["data.max_held_out"],
        max_unreadable=settings["pictures.max_unreadable"],
        cache_bytes=settings["data.cache_bytes"],
    )


def read_material(
    settings: Settings, request: CompressRequest, spec: NetworkSpec, size: Size, seed: int, hooks: Hooks
) -> Material:
    """Return the pictures that `compress` works on.

    Raises:
        InputError: the folders contradict each other.
        PictureError: there are no pictures, too few, or too many that cannot be read.
    """
    reading = reading_for(settings, spec, size, seed)
    if not request.has_pictures:
        hooks.tell("note: built-in pictures are used, and the original's outputs are all there is to learn from;")
        hooks.tell("      --source with pictures of your own gives better quality")
        return built_in(reading, settings["quick.pictures" if request.quick else "built_in.pictures"])
    folders = find_folders(
        data=None if request.data is None else Path(request.data),
        layout=request.layout,
        source=None if request.source is None else Path(request.source),
        target=None if request.target is None else Path(request.target),
        direction=request.direction,
    )
    hooks.tell("reading the pictures")
    material = from_folders(folders, reading, on_unreadable=hooks.skipped, track=hooks.track)
    if material.target is None:
        hooks.tell("note: without --target the slim generator learns from the original alone")
    elif material.objective == "unpaired" and request.partner is None:
        hooks.tell("note: without --partner, finetuning has no cycle and identity losses")
    return material
