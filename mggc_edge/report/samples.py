"""The sample pictures of a run, read within bounds."""

from __future__ import annotations

import struct
from pathlib import Path

from mggc_edge.errors import ArtifactError
from mggc_edge.report.facts import COLUMNS, Sample
from mggc_edge.report.fields import read_fields

SAMPLES_SCHEMA = "mggc-edge/samples/1"
MAX_SAMPLES, MAX_PICTURE_BYTES, MAX_SIDE = 12, 8 * 2**20, 4096
PNG = b"\x89PNG\r\n\x1a\n"


def read_samples(folder: Path) -> tuple[Sample, ...]:
    """Return the samples in a folder; none where there is no index.

    Raises:
        ArtifactError: the index, or a picture that it names, is damaged.
    """
    index = read_fields(folder / "index.json", SAMPLES_SCHEMA)
    if index is None:
        return ()
    samples: list[Sample] = []
    for row in index.objects("rows")[:MAX_SAMPLES]:
        pictures = {}
        for column in COLUMNS:
            name = row.text(column)
            if name is not None:
                if name != Path(name).name or "\\" in name or "\0" in name:
                    index.damaged(f"'{name}' is no name of a picture beside it")
                pictures[column] = _picture(folder / name)
        if "original" not in pictures or "compressed" not in pictures:
            index.damaged("a row lacks the original's picture or the compressed generator's")
        samples.append(Sample(row.text("name") or f"picture {len(samples) + 1}", pictures))
    return tuple(samples)


def _picture(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ArtifactError(f"'{path}' is not there, although index.json names it")
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise ArtifactError(f"'{path}' is too large for a sample")
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}") from error
    # PNG: signature, then the IHDR chunk: length 13, type, width and height as big-endian 32-bit numbers
    if len(data) < 33 or not data.startswith(PNG + b"\0\0\0\x0dIHDR"):
        raise ArtifactError(f"'{path}' is no PNG picture")
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ArtifactError(f"'{path}' claims to be {width} x {height} pixels")
    return data
