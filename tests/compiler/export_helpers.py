"""What the tests of exports share: small networks with realistic weights, and exports that are made once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mggc_edge.compiler import torch_graph as exporter
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec, NormKind
from mggc_edge.models.unet import unet_spec
from mggc_edge.tensors import FloatArray

SIZE = (32, 32)
NORMS: tuple[NormKind, ...] = ("instance", "instance_affine", "batch")
FOLDERS: list[Path] = []  # of this session, for `exported`; every test file puts one here


def small_generators() -> list[NetworkSpec]:
    """Every family with every norm that it can have, and for ResNets both paddings and the separable form."""
    specs: list[NetworkSpec] = []
    for norm in NORMS:
        specs += [
            resnet_spec(blocks=1, ngf=4, norm=norm),
            resnet_spec(blocks=1, ngf=4, norm=norm, padding="zeros", dropout=True),
            resnet_spec(blocks=1, ngf=4, norm=norm, separable=True),
            unet_spec(halvings=5, ngf=4, norm=norm),
        ]
    return [*specs, cartoongan_spec(blocks=1, ngf=4)]


def spec_id(spec: NetworkSpec) -> str:
    return "-".join([spec.family, spec.norm, spec.padding, *["separable"] * spec.separable])


def network_of(spec: NetworkSpec, *, seed: int = 0) -> Network:
    """A network in evaluation mode whose values are of the size that a trained one has."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(spec, layer_table(spec, SIZE)).eval()
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 4:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif key.endswith(("weight", "scale", "running_var")):
                tensor.copy_(0.5 + noise.abs() / 2)
            else:
                tensor.copy_(noise / 5)
    return network


@functools.cache
def exported(spec: NetworkSpec, settings: ExportSettings | None = None, seed: int = 0) -> Exported:
    """An export of `network_of(spec)`, made once for all tests; nobody changes its file."""
    folder = Path(tempfile.mkdtemp(dir=FOLDERS[-1]))
    return to_onnx(network_of(spec, seed=seed), folder / "g.onnx", settings or ExportSettings(image_size=SIZE))


@functools.cache
def _from_torch(spec: NetworkSpec) -> bytes:
    model = exporter._export(exporter._ready_for_export(network_of(spec)), SIZE, ExportSettings(image_size=SIZE))
    data: bytes = model.SerializeToString()
    return data


def without_torch_export(monkeypatch: pytest.MonkeyPatch, spec: NetworkSpec) -> None:
    """Let `to_onnx` start from what torch.onnx gave once for `network_of(spec)`: what comes after it is tested."""
    data = _from_torch(spec)
    monkeypatch.setattr(exporter, "_export", lambda *_: onnx.load_model_from_string(data))


def model_of(export: Exported) -> onnx.ModelProto:
    return onnx.load_model_from_string(export.artifact.path.read_bytes())


def picture(batch: int = 1, channels: int = 3, seed: int = 1) -> FloatArray:
    """A [N, C, 32, 32] array in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (batch, channels, *SIZE)).astype(np.float32)


def torch_output(network: Network, feed: FloatArray) -> FloatArray:
    with torch.inference_mode():
        output: FloatArray = network(torch.from_numpy(feed)).numpy()
    return output
