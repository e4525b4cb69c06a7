"""TensorRT engines of bundles, built on the device before they are measured there; and bundles as files to be sent."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mggc_edge.benchmarks.devices.base import Device
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError

BUILD_SECONDS = 7200.0  # an engine takes minutes on a small board
_TIME = (1980, 1, 1, 0, 0, 0)  # the same files give the same archive


def prepare(models: Sequence[Workload], device: Device, say: Callable[[str], None] | None = None) -> list[str]:
    """Return where the file of each model lies on the device: sent there, or, of a bundle, built there.

    Args:
        models: what is to be measured.
        device: where, entered.
        say: is told which engine may have to be built.

    Raises:
        ArtifactError: an engine cannot be built, or gives other pictures than its network.
        DeviceError, MissingDependencyError: see `Device.prepare`.
    """
    places = device.prepare(models)
    for index, model in enumerate(models):
        if model.of_bundle:
            if say is not None:
                say(f"building the engine of {model.name} on the device, unless it is there: that takes minutes")
            worker = device.start(model)
            try:
                request = {
                    "do": "build",
                    "bundle": places[index],
                    "file": model.path.name,
                    "precision": model.precision,
                }
                places[index] = str(worker.ask(request, BUILD_SECONDS)["engine"])
            finally:
                worker.end()
    return places


def packed(bundle: Path, archive: Path) -> Path:
    """Write the files of a bundle's folder, but for engines, into an archive; the same files give the same bytes.

    Raises:
        ArtifactError: a file cannot be read.
    """
    try:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as made:
            for path in sorted(bundle.iterdir()):
                if path.is_file():
                    made.writestr(zipfile.ZipInfo(path.name, _TIME), path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"the bundle '{bundle}' cannot be read: {error.strerror}") from error
    return archive
