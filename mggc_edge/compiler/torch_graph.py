"""A network as an ONNX graph before any pass, as torch's exporter writes it, and what files of it are held against."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from mggc_edge._version import __version__
from mggc_edge.artifacts import METADATA_PREFIX
from mggc_edge.backends.pytorch import PyTorchRunner
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.finishing import quiet, rewriting, simplified, strip
from mggc_edge.compiler.opset import in_opset
from mggc_edge.compiler.qdq import insert_qdq
from mggc_edge.compiler.quantized import in_floats, network_grids, precision_of
from mggc_edge.errors import CheckFailedError, SpecError
from mggc_edge.lazy import require
from mggc_edge.models.convert import BatchNormMode, fold_batch_norm, per_picture_norm
from mggc_edge.models.cost import macs
from mggc_edge.models.families import family_of, layer_table
from mggc_edge.models.layers import LayerTable, Size
from mggc_edge.models.network import Network
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

INPUT_NAME, OUTPUT_NAME = "input", "output"
MIN_WRITTEN = 18  # opset of torch's exporter; what is older is converted
PICTURE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class PlainGraph:
    """A generator as a graph before any pass, and what the files that are made of it are held against.

    Attributes:
        network: the generator.
        reference: see `reference_network`.
        model: the graph, of a quantized network with its grids; it takes and gives floats.
        metadata: what every file says of itself.
        settings: of the export; a file may be for another target.
        remarks: what is to be said.
        float_bytes, float_weights_bytes: see `Exported`.
    """

    network: Network
    reference: Network
    model: onnx.ModelProto
    metadata: Mapping[str, str]
    settings: ExportSettings
    remarks: tuple[str, ...]
    float_bytes: int
    float_weights_bytes: int


def reference_network(network: Network, bn: BatchNormMode) -> Network:
    """Return what an export is held against: a copy on the CPU in evaluation mode, or its per-picture form."""
    return copy.deepcopy(per_picture_norm(network) if bn == "batch" else network).cpu().eval()


def plain_graph(
    network: Network,
    settings: ExportSettings | None = None,
    *,
    parent_sha256: str | None = None,
    origin: Mapping[str, str] | None = None,
) -> PlainGraph:
    """Return a generator as a graph, from which files for any target are made.

    Batch norm is folded, and biases that an instance norm takes away again are left out.

    Args:
        network: a generator; it is not changed.
        settings: see `ExportSettings`.
        parent_sha256: hash of the checkpoint it came from, for the lineage in the files' metadata.
        origin: further metadata, such as how the checkpoint was read ("direction", "norm_stats").

    Raises:
        SpecError: the network is a discriminator, or cannot run at this picture size.
        ArtifactError: its operators cannot be had in the version that was asked for.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """
    settings = settings or ExportSettings()
    family = family_of(network.spec)
    check_generator(network.spec)
    if next(network.parameters()).dtype != torch.float32:
        raise SpecError("only networks in float32 are exported", hint="convert it first: network.float()")
    table = layer_table(network.spec, settings.image_size)
    for module in ("onnx", "onnxscript"):
        require(module, extra="onnx")
    reference = reference_network(network, settings.bn)
    written = max(settings.opset, MIN_WRITTEN)
    model = _export(_ready_for_export(in_floats(reference)), table.image_size, replace(settings, opset=written))
    _check_opset(model, written)
    remarks = []
    if settings.simplify:
        model, remark = simplified(model)
        remarks += [remark] if remark else []
    strip(model)
    model = in_opset(model, settings.opset)
    metadata = describe(network, table.image_size, settings.bn, parent_sha256)
    metadata |= {METADATA_PREFIX + key: value for key, value in (origin or {}).items()}
    set_properties = require("onnx.helper", extra="onnx").set_model_props
    set_properties(model, {**metadata, **rewriting(settings.target, [], both_macs(table))})
    model.producer_name, model.producer_version = "mggc-edge", __version__
    model.graph.name = family.title(network.spec)
    float_bytes, float_weights_bytes = model.ByteSize(), weights_bytes(model)
    if precision_of(network.spec) == "int8":  # before the passes, which leave convolutions with such weights alone
        insert_qdq(model, network_grids(reference))
        require("onnx", extra="onnx").checker.check_model(model)
    return PlainGraph(network, reference, model, metadata, settings, tuple(remarks), float_bytes, float_weights_bytes)


def both_macs(table: LayerTable) -> tuple[int, int]:
    """Return the MACs of a network, (true, paper)."""
    return macs(table, "true"), macs(table, "paper")


def weights_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of the tensors in a graph, as they lie in memory."""
    numpy_helper = require("onnx.numpy_helper", extra="onnx")
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def check_generator(spec: NetworkSpec) -> None:
    """Raise SpecError unless a network turns pictures into pictures."""
    role = family_of(spec).role
    if role != "generator":
        raise SpecError(f"this is a {role}, and only generators are exported and run")
    for channels in (spec.in_channels, spec.out_channels):
        if channels not in PICTURE_CHANNELS:
            raise SpecError(f"this generator has pictures of {channels} channels; 1, 3 and 4 are possible")


def torch_runner(
    network: Network, image_size: Size | None = None, *, name: str = "torch", metadata: Mapping[str, str] | None = None
) -> PyTorchRunner:
    """Return a runner of a network at a picture size, with the names that its exported file has."""
    spec = network.spec
    table = layer_table(spec, image_size)
    size, out_size = table.image_size, table.layers[-1].out_size
    return PyTorchRunner(
        network,
        (TensorSpec(INPUT_NAME, "float32", (None, spec.in_channels, *size)),),
        (TensorSpec(OUTPUT_NAME, "float32", (None, spec.out_channels, *out_size)),),
        name=name,
        metadata=metadata,
    )


def _ready_for_export(network: Network) -> Network:
    """Return a copy with batch norm folded and without biases that have no effect."""
    ready = copy.deepcopy(fold_batch_norm(network))
    for layer in ready.table.layers:
        if not layer.bias:
            continue
        conv = ready.get_submodule(layer.name)
        bias = conv.get_parameter("bias")
        # An instance norm subtracts the mean, and with it whatever was added to every position.
        if layer.norm_kind in ("instance", "instance_affine") or not bias.any():
            conv.register_parameter("bias", None)
    return ready.eval()


def _export(network: Network, size: Size, settings: ExportSettings) -> onnx.ModelProto:
    batch = 2 if settings.dynamic_batch else 1  # a batch of 1 would be taken for a constant
    example = torch.zeros(batch, network.spec.in_channels, *size)
    with quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            external_data=False,
            opset_version=settings.opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: "batch"},) if settings.dynamic_batch else None,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _check_opset(model: onnx.ModelProto, wanted: int) -> None:
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if found.get("ai.onnx") != wanted:
        raise CheckFailedError(f"opset {wanted} was asked for, but the exporter wrote opset {found.get('ai.onnx')}")


def describe(network: Network, image_size: Size, bn: BatchNormMode, parent_sha256: str | None = None) -> dict[str, str]:
    """Return the metadata that a bare file needs to be translated with and verified."""
    spec = network.spec
    metadata = {
        "version": __version__,
        "spec": json.dumps(spec.to_json(), separators=(",", ":")),
        "image_size": f"{image_size[0]}x{image_size[1]}",
        "bn": bn,
        "input_format": json.dumps(spec.input_format.to_json()),
        "output_format": json.dumps(spec.output_format.to_json()),
        "precision": precision_of(spec),
        "parent_sha256": parent_sha256 or "",
    }
    return {METADATA_PREFIX + key: value for key, value in metadata.items()}
