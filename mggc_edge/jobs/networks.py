"""The networks that a job works on: the original, its discriminator, and the generator of the other direction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mggc_edge.compiler.torch_graph import check_generator
from mggc_edge.errors import CheckpointError, InputError, SpecError
from mggc_edge.models.convert import BatchNormMode, per_picture_norm
from mggc_edge.models.families import family_of, layer_table
from mggc_edge.models.family import NormStats
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network
from mggc_edge.models.weights import load_network, weights_file_sha256, weights_sha256
from mggc_edge.opening import what_is
from mggc_edge.run_folder import run_network

DISCRIMINATOR_FOLDER = "discriminator"  # beside a saved generator


@dataclass(frozen=True)
class Originals:
    """What a user gave.

    Attributes:
        sha256: each network's role -> hash of its spec and weights, whatever file they came from.
        files: each network's role -> hash of the file with its weights.
    """

    generator: Network
    discriminator: Network | None
    partner: Network | None
    sha256: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)


def load_originals(
    model: Path,
    discriminator: Path | None,
    partner: Path | None,
    *,
    direction: str = "AtoB",
    norm_stats: NormStats = "instance",
    bn: BatchNormMode = "eval",
    image_size: Size | None = None,
    max_bytes: int,
) -> Originals:
    """Load the networks of a job, and check that they belong together.

    Raises:
        CheckpointError: a file cannot be read.
        SpecError: a network cannot run at `image_size`, or the model is no generator.
        InputError: a network is of another kind, or of other channels, than its role needs.
    """
    way = "BtoA" if direction == "BtoA" else "AtoB"
    back = "AtoB" if way == "BtoA" else "BtoA"

    files = dict[str, str]()

    def load(role: str, path: Path, which: str, size: Size | None) -> Network:
        kind = what_is(path)
        if kind == "run":
            path, run_size = run_network(path)
            size = size or run_size
        elif kind not in ("checkpoint", "network"):
            raise InputError(f"'{path}' holds no weights", hint="give a checkpoint or a folder with a saved network")
        network = load_network(
            path,
            direction="BtoA" if which == "BtoA" else "AtoB",
            norm_stats=norm_stats,
            image_size=size,
            max_bytes=max_bytes,
        )
        if network.spec.quantization != "none":
            raise InputError(
                f"the {role} '{path}' is quantized already, and only networks in floats are compressed",
                hint="give the checkpoint that it was made from",
            )
        files[role] = weights_file_sha256(path)
        return network

    with _named("model", model, "give a checkpoint of the generator"):
        generator = load("generator", model, way, image_size)
        check_generator(generator.spec)
    size = generator.table.image_size
    judge = other = None
    if discriminator is not None:
        with _named("discriminator", discriminator, "give the discriminator that was trained with this generator"):
            judge = load("discriminator", discriminator, way, size)
    if partner is not None:
        with _named("partner", partner, "give the generator of the other direction"):
            other = load("partner", partner, back, size)
    if judge is not None:
        assert discriminator is not None
        _check_judge(generator, judge, discriminator)
        if discriminator.is_dir():
            _check_colors("discriminator", generator, judge, discriminator)
        else:
            judge = _seeing_what_it_gives(judge, generator)
    if other is not None:
        assert partner is not None
        _check_partner(generator, other, partner)
    if bn == "batch":
        generator = per_picture_norm(generator)
    roles = {"generator": generator, "discriminator": judge, "partner": other}
    hashes = {role: weights_sha256(network) for role, network in roles.items() if network is not None}
    return Originals(generator, judge, other, hashes, files)


@contextlib.contextmanager
def _named(role: str, path: Path, hint: str) -> Iterator[None]:
    """Say of which file a network description makes no sense, or cannot run at the picture size."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"the {role} '{path}': {error.message}", hint=error.hint or hint) from error


def _check_judge(generator: Network, judge: Network, path: Path) -> None:
    if family_of(judge.spec).role != "discriminator":
        raise InputError(f"'{path}' is a {family_of(judge.spec).role}, not a discriminator")
    alone, together = generator.spec.out_channels, generator.spec.in_channels + generator.spec.out_channels
    if judge.spec.in_channels not in (alone, together):
        raise InputError(
            f"the discriminator '{path}' takes {judge.spec.in_channels} channels, and for this generator it must take "
            f"{alone} (the output) or {together} (input and output)",
            hint="give the discriminator that was trained with this generator, or none: one is then fitted",
        )


def _check_partner(generator: Network, partner: Network, path: Path) -> None:
    if family_of(partner.spec).role != "generator":
        raise InputError(f"the partner '{path}' is a {family_of(partner.spec).role}, not a generator")
    wanted = (generator.spec.out_channels, generator.spec.in_channels)
    if (partner.spec.in_channels, partner.spec.out_channels) != wanted:
        raise InputError(
            f"the partner '{path}' turns {partner.spec.in_channels} channels into {partner.spec.out_channels}, and the "
            f"way back from this generator is {wanted[0]} to {wanted[1]}",
            hint="give the generator of the other direction",
        )
    _check_colors("partner", generator, partner, path)


def _check_colors(role: str, generator: Network, other: Network, path: Path) -> None:
    """Check that the pictures of one network have the values that the other one takes them to have."""
    own, its = ((spec.color_order, spec.low, spec.high) for spec in (generator.spec, other.spec))
    if own != its:
        raise InputError(
            f"the {role} '{path}' sees pictures as {_values(its)}, and this generator as {_values(own)}",
            hint=f"give the {role} that was trained with this generator, or none",
        )


def _values(form: tuple[str, float, float]) -> str:
    return f"{form[0]} from {form[1]:g} to {form[2]:g}"


def _seeing_what_it_gives(judge: Network, generator: Network) -> Network:
    """Return a discriminator whose spec has the generator's colours: its checkpoint does not tell which it saw."""
    own = generator.spec
    spec = replace(judge.spec, color_order=own.color_order, low=own.low, high=own.high)
    if spec == judge.spec:
        return judge
    return Network.from_tensors(spec, layer_table(spec, judge.table.image_size), dict(judge.state_dict())).eval()


def saved_network(folder: Path, image_size: Size) -> Network | None:
    """Return the network that a stage saved in `folder`, None where it has not come to that.

    Raises:
        CheckpointError: it is damaged.
    """
    if not (folder / "spec.json").is_file():  # written last
        return None
    try:
        return load_network(folder, image_size=image_size)
    except CheckpointError as error:
        raise CheckpointError(error.message, hint=f"remove '{folder}'; it will be made again") from error
