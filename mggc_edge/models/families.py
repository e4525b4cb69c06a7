"""The registry of network families, and the functions that ask it. A new family is one file and one line here."""

from __future__ import annotations

from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.models import cartoongan, patchgan, resnet, unet
from mggc_edge.models.family import Family, NormStats, Shapes
from mggc_edge.models.layers import OUTPUT, LayerTable, Size
from mggc_edge.models.spec import NetworkSpec

# In the order in which a state dict is offered to them: the most particular keys first.
FAMILIES: tuple[Family, ...] = (unet.FAMILY, resnet.FAMILY, cartoongan.FAMILY, patchgan.FAMILY)


def family_of(spec: NetworkSpec) -> Family:
    """Return the family of a spec.

    Raises:
        SpecError: no family has that name.
    """
    for family in FAMILIES:
        if family.name == spec.family:
            return family
    raise SpecError(f"there is no network family '{spec.family}'", hint=f"known: {', '.join(f.name for f in FAMILIES)}")


def layer_table(spec: NetworkSpec, image_size: Size | None = None) -> LayerTable:
    """Return the layer table of a spec at a picture size (height, width), by default the family's usual one.

    Raises:
        SpecError: the family is unknown, it has no such channel group, or the network cannot run at that size.
    """
    family = family_of(spec)
    table = family.draw(spec, family.default_image_size(spec) if image_size is None else image_size)
    stated = {*(layer.output for layer in table.layers), *family.removable_groups(spec)} - {OUTPUT}
    for group, _ in spec.widths:
        if group not in stated:
            raise SpecError(f"a {family.name} of this depth has no channel group '{group}'")
    return table


def infer_spec(shapes: Shapes, norm_stats: NormStats = "instance") -> NetworkSpec:
    """Return the spec of the network that the shapes of a state dict, by key, belong to.

    Raises:
        CheckpointError: no family recognises it, or the one that does cannot have saved it.
    """
    for family in FAMILIES:
        if family.recognises(shapes):
            try:
                return family.infer(shapes, norm_stats)
            except SpecError as error:
                raise CheckpointError(f"this {family.name} has impossible sizes: {error.message}") from error
    first = ", ".join(list(shapes)[:3]) or "none"
    raise CheckpointError(
        f"no known network has these weights (first keys: {first})",
        hint="supported are ResNet, U-Net and CartoonGAN generators, and the PatchGAN of CycleGAN and pix2pix",
    )
