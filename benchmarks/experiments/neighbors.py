"""Neighborhoods before and after, as the paper's Fig. 5: centres with their k nearest pictures, and how many agree.

    python -m mggc_edge.benchmarks.experiments.neighbors RUN [--k 5] [--centers 6] [--pictures train|test]
        [--feature-net FILE[:TENSOR] --preprocessing NAME] [--out neighbors.png]

RUN is a finished folder of `mggc-edge compress` whose pictures are still where they were. Both generators run over all
of them; the nearest are found by cosine in the features of the run's --feature-net, or of the one given. That network
took no part in pruning. Prints one JSON object: the mean share of neighbors that agree with its bootstrap interval over
pictures, and what chance would give, k / (n - 1). On the sheet, neighbors that both sides name are framed in green.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from mggc_edge.artifacts import EXPORT_FOLDER, GENERATOR_FILE, ORIGINAL_FILE, PORTABLE, atomic_path
from mggc_edge.backends.base import Runner
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.benchmarks.experiments.study.intervals import agreement, estimate
from mggc_edge.benchmarks.experiments.study.measure import material_of
from mggc_edge.errors import InputError
from mggc_edge.opening import geometry
from mggc_edge.pictures import to_picture
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods
from mggc_edge.quality.features import FeatureNetwork
from mggc_edge.quality.parity import only_output
from mggc_edge.training.bank import PictureSet

CELL, GAP, MIDDLE, TOP = 68, 4, 22, 22  # pixels of the sheet
AGREED = "#1a9850"
Numbers = npt.NDArray[np.int64]


class Generated:
    """What a generator makes of pictures: made when asked for, so that only features are kept for all of them."""

    def __init__(self, runner: Runner, inputs: PictureSet) -> None:
        self._runner, self._inputs = runner, inputs

    def picture(self, index: int) -> Image.Image:
        """Return the output for one input."""
        y = only_output(self._runner, self._inputs.batch([index]).numpy())
        return to_picture(y, geometry(self._runner).output_format)

    def features(self, network: FeatureNetwork) -> npt.NDArray[np.float32]:
        """Return the features of all outputs, [n, d]."""
        return network.features(self.picture(index) for index in range(len(self._inputs)))


def look(
    run: Path, *, k: int, centers: int, pictures: str, feature_net: str | None, preprocessing: str | None, seed: int
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the sheet, and what to say about it.

    Raises:
        InputError: neither the run nor the caller names a feature network, or there are not more than k pictures.
    """
    material, request, settings = material_of(run)
    which = feature_net or request.feature_net
    if which is None:
        raise InputError("neighbors need features, and this run has no feature network", "give --feature-net")
    inputs = material.source if pictures == "train" else material.test
    portable = run / EXPORT_FOLDER / PORTABLE
    with (
        OnnxRuntimeRunner(portable / ORIGINAL_FILE) as a,
        OnnxRuntimeRunner(portable / GENERATOR_FILE) as b,
        FeatureNetwork(which, preprocessing=preprocessing or str(settings["features.preprocessing"])) as network,
    ):
        sides = (Generated(a, inputs), Generated(b, inputs))
        found = [neighborhoods(torch.from_numpy(side.features(network)), k).numpy() for side in sides]
        chosen = sorted(random.Random(seed).sample(range(len(inputs)), min(centers, len(inputs))))  # noqa: S311
        picture = sheet(sides, found, chosen)
        name = network.name
    shares = agreement(*found)
    ci95 = estimate(shares[None]).ci95
    return picture, {
        "pictures": len(inputs),
        "of": pictures,
        "k": k,
        "features": name,
        "agree": round(float(shares.mean()), 4),
        "ci95": None if ci95 is None else [round(end, 4) for end in ci95],
        "by_chance": round(k / (len(inputs) - 1), 4),
        "centers": [inputs.names[index] for index in chosen],
    }


def sheet(sides: tuple[Generated, Generated], found: list[Numbers], centers: list[int]) -> Image.Image:
    """Return a line for every centre: its picture and neighbors by the original, then by the compressed generator."""
    k = found[0].shape[1]
    half = (k + 1) * (CELL + GAP) + GAP  # a wider gap stands between a centre and its neighbors
    size = (2 * half + MIDDLE + GAP, TOP + len(centers) * (CELL + GAP) + GAP)
    canvas = Image.new("RGB", size, "white")
    drawing = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    for number, (side, neighbors, title) in enumerate(zip(sides, found, ("original", "compressed"), strict=True)):
        left = GAP + number * (half + MIDDLE)
        drawing.text((left, 3), f"{title}: centre and its {k} nearest", fill="black", font=font)
        for row, center in enumerate(centers):
            both = set(found[0][center].tolist()) & set(found[1][center].tolist())
            top = TOP + row * (CELL + GAP)
            for place, index in enumerate([center, *neighbors[center].tolist()]):
                at = left + place * (CELL + GAP) + (GAP if place else 0)
                shown = side.picture(index).convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC)
                canvas.paste(shown, (at, top))
                if place and index in both:
                    drawing.rectangle((at - 2, top - 2, at + CELL + 1, top + CELL + 1), outline=AGREED, width=4)
    return canvas


def main() -> None:
    """Draw the sheet and print what it shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--centers", type=int, default=6)
    parser.add_argument("--pictures", choices=("train", "test"), default="train")
    parser.add_argument("--feature-net")
    parser.add_argument("--preprocessing")
    parser.add_argument("--seed", type=int, default=0, help="of which centres are shown")
    parser.add_argument("--out", type=Path, default=Path("neighbors.png"))
    options = parser.parse_args()
    picture, document = look(
        options.run,
        k=options.k,
        centers=options.centers,
        pictures=options.pictures,
        feature_net=options.feature_net,
        preprocessing=options.preprocessing,
        seed=options.seed,
    )
    with atomic_path(options.out) as temporary:
        picture.save(temporary, format="JPEG" if options.out.suffix in (".jpg", ".jpeg") else "PNG", quality=88)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
