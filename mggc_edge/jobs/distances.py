"""Distances of distributions: what the features of a network say about both generators' pictures and real ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mggc_edge.compiler.facts import check_onnx
from mggc_edge.models.inception import Inception
from mggc_edge.pictures import to_picture
from mggc_edge.quality.bootstrap import FEWEST, Statistic, bootstrap, bootstrap_both
from mggc_edge.quality.features import FeatureNetwork, split_feature_net
from mggc_edge.quality.frechet import PICTURES_PER_FEATURE, enough_for_frechet, frechet_statistic
from mggc_edge.quality.kid import kid, kid_statistic
from mggc_edge.settings import Settings
from mggc_edge.tensors import FloatArray
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.material import Material

SIDES = ("original", "compressed")
MAX_SUBSET = 1000  # vectors of a KID's subset
TRIAL_SIDE = 64  # pixels


class Extractor(Protocol):
    """Pictures to feature vectors, between `__enter__` and `__exit__`."""

    name: str

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> None: ...

    def features(self, pictures: Iterable[Image.Image]) -> FloatArray:
        """Return one row of features a picture, float32 [n, d]."""
        ...


def feature_networks(settings: Settings, feature_net: str | None, inception: str | None) -> list[Extractor]:
    """Return the networks to measure by, each tried on a picture: what is wrong with one is known before anything long.

    Args:
        feature_net: "FILE" or "FILE:TENSOR" of an ONNX network.
        inception: the file with the weights of the FID's network.

    Raises:
        ArtifactError: there is no such ONNX file or tensor, it is damaged, or it does not give one finite vector.
        CheckpointError: the weights cannot be read, or are those of another network.
    """
    networks: list[Extractor] = []
    if feature_net is not None:
        check_onnx(split_feature_net(feature_net)[0])
        networks.append(FeatureNetwork(feature_net, preprocessing=settings["features.preprocessing"]))
    if inception is not None:
        networks.append(Inception(Path(inception), max_bytes=settings["checkpoint.max_bytes"]))
    for network in networks:
        try_out(network)
    return networks


def try_out(network: Extractor) -> None:
    """Open a network and show it one picture of noise.

    A file can open, and yet give what is no vector of features, or not a finite one.

    Raises:
        ArtifactError: it cannot be opened or run, or gives something that is not one finite vector.
    """
    levels = np.random.default_rng(0).integers(0, 256, (TRIAL_SIDE, TRIAL_SIDE, 3), dtype=np.uint8)
    with network:
        network.features([Image.fromarray(levels)])


class Distances:
    """KID and Frechet distance by several networks; use it in a `with` block and show it every picture.

    Of the pictures only the features are kept.
    """

    def __init__(self, networks: Sequence[Extractor], *, max_real: int) -> None:
        self._networks = networks
        self._max_real = max_real
        self._found: list[dict[str, list[FloatArray]]] = [{side: [] for side in SIDES} for _ in networks]
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Distances:
        with contextlib.ExitStack() as stack:
            for network in self._networks:
                stack.enter_context(network)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def add(self, pictures: Mapping[str, Image.Image]) -> None:
        """Take the pictures of both SIDES for one input."""
        for network, found in zip(self._networks, self._found, strict=True):
            for side in SIDES:
                found[side].append(network.features([pictures[side]])[0])

    def to_json(self, material: Material, seed: int) -> dict[str, Any]:
        """Return the part of `quality.json` about distributions: every network's numbers, and the promised keys.

        The keys at the top are those of the first network that has the number.
        """
        rows = [
            self._row(network, {side: np.stack(found[side]) for side in SIDES}, material, seed)
            for network, found in zip(self._networks, self._found, strict=True)
        ]
        frechet = next((row for row in rows if row["metric"] == "frechet"), None)
        fid = next((row for row in rows if row["metric"] == "fid"), None)
        return {
            "features": rows[0]["features"] if rows else None,
            "kid": rows[0]["kid"] if rows else None,
            "kid_reason": rows[0]["kid_reason"] if rows else None,
            "frechet": None
            if frechet is None or frechet["frechet"] is None
            else {"features": frechet["features"], **frechet["frechet"]},
            "frechet_reason": None if frechet is None else frechet["reason"],
            "fid": None if fid is None else {**(fid["frechet"] or dict.fromkeys(SIDES)), "reason": fid["reason"]},
            "distributions_against": rows[0]["against"] if rows else None,
            "distances": rows,
        }

    def _row(
        self, network: Extractor, found: Mapping[str, FloatArray], material: Material, seed: int
    ) -> dict[str, Any]:
        """Return one network's distances of both sets of outputs to real pictures of the target.

        Where there are no real ones, the original's outputs stand for them. What belongs together picture by picture
        (the truth of every test picture; two outputs for one input) is drawn together by the bootstrap.
        """
        # The name FID means the published weights, and nothing else.
        metric = "fid" if isinstance(network, Inception) and network.published else "frechet"
        row: dict[str, Any] = {"features": network.name, "metric": metric}
        row |= dict.fromkeys(("kid", "kid_reason", "frechet", "reason", "against"))
        real, against, pairs = found["original"], "original's outputs", True
        names: tuple[str, ...] = SIDES[1:]
        sets = material.all_target if isinstance(network, Inception) else ()
        if not sets and material.test_target is not None:
            sets = (material.test_target,)
        if sets:
            real = network.features(_real_pictures(sets, self._max_real))
            against, names = f"{len(real)} real pictures", SIDES
            pairs = material.test_truth is not None and len(real) == len(found["original"])
        count, width = len(found["compressed"]), real.shape[1]
        fewest = min(len(real), count)
        if fewest < 2:
            alone = f"{fewest} picture is no distribution"
            return {**row, "kid_reason": alone, "reason": alone}
        reals = 0 if pairs else len(real)
        row["against"] = against
        if fewest < FEWEST:  # its subsets would be of one or two pictures, and no interval would say so
            row["kid_reason"] = f"{fewest} pictures are too few for KID: {FEWEST} are needed"
        else:
            size = min(MAX_SUBSET, fewest // 2)
            distances = {side: kid(real, found[side], subset_size=size, seed=seed).to_json() for side in names}
            statistics = [kid_statistic(real, found[side], pairs=pairs) for side in names]
            estimates = _estimates(statistics, count, reals, seed)
            kids = {side: {**distances[side], "ci95": estimates[side]["ci95"]} for side in names}
            row["kid"] = {"original": None, **kids, "difference": estimates.get("difference")}
        if not enough_for_frechet(fewest, width):
            needed = f"{PICTURES_PER_FEATURE * width:,} are needed"
            return {**row, "reason": f"{fewest} pictures are too few for {width} features: {needed}"}
        estimates = _estimates(
            [frechet_statistic(real, found[side], pairs=pairs) for side in names], count, reals, seed
        )
        nothing = {"value": None, "ci95": None}
        frechet = {side: estimates.get(side, nothing)["value"] for side in SIDES}
        ends = {f"{side}_ci95": estimates.get(side, nothing)["ci95"] for side in SIDES}
        return {**row, "frechet": {**frechet, **ends, "difference": estimates.get("difference")}}


def _estimates(statistics: Sequence[Statistic], pictures: int, reals: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return the estimate of each side, and of compressed less original; of one statistic, that of compressed."""
    if len(statistics) == 1:
        return {"compressed": bootstrap(statistics, pictures, reals=reals, seed=seed).to_json()}
    original, compressed = statistics
    found = bootstrap_both([compressed], [original], pictures, reals=reals, seed=seed)
    return {name: one.to_json() for name, one in zip(("compressed", "original", "difference"), found, strict=True)}


def _real_pictures(sets: Sequence[PictureSet], most: int) -> Iterator[Image.Image]:
    left = most
    for pictures in sets:
        for index in range(min(len(pictures), left)):
            yield to_picture(pictures.batch([index])[0].numpy(), pictures.format)
        left -= min(len(pictures), left)
