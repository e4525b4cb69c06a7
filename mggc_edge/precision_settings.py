"""The settings of fp16 and int8 files that are made from a float one: calibration, 8-bit layers, how each is judged."""

from __future__ import annotations

from mggc_edge.setting import Setting

PRECISION_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "calibration.half",
        "whole",
        "",
        "part of every --calibration picture: of side-by-side pairs left or right",
        choices=("whole", "left", "right"),
    ),
    Setting(
        "calibration.held_out",
        8,
        "pictures",
        "calibration pictures that precision is measured on, and nothing else",
        low=1,
        high=256,
    ),
    Setting(
        "calibration.method",
        "auto",
        "",
        "how ranges of activations are found; auto: the best of min-max, percentile and mse for the network",
        "measured",
        choices=("auto", "min-max", "moving-average", "percentile", "entropy", "mse"),
    ),
    Setting(
        "calibration.momentum",
        0.1,
        "",
        "of moving-average, part of the newest picture",
        "ours; PyTorch: 0.01",
        low=1e-4,
        high=1,
    ),
    Setting(
        "calibration.percentile",
        99.99,
        "%",
        "of all values, beyond which percentile cuts on either side",
        "TensorRT",
        low=50.001,
        high=100,
    ),
    Setting("calibration.pictures", 32, "pictures", "ranges of activations are found on", low=1, high=10_000),
    Setting(
        "precision.speed",
        "auto",
        "",
        "measure whether a file is faster than fp32 here; auto: where the target is this machine",
        choices=("auto", "always", "never"),
    ),
    Setting(
        "quantize.activations",
        "auto",
        "",
        "levels of activations in int8 files; auto: the target's",
        choices=("auto", "uint8", "int8", "symmetric"),
    ),
    Setting(
        "quantize.keep_float",
        "",
        "",
        "nodes that stay in float in int8 files: names with commas; auto: as few as pass --min-precision-psnr",
    ),
    Setting(
        "quantize.last_layer",
        "float",
        "",
        "the last convolution of int8 files; in int8 its steps may show",
        "measured",
        choices=("float", "int8"),
    ),
    Setting(
        "quantize.sensitivity",
        "rejected",
        "",
        "measure what each layer costs in 8 bits: always, never, or of a rejected file",
        choices=("rejected", "always", "never"),
    ),
    Setting(
        "quantize.weight_bits",
        0,
        "bits",
        "of weights in int8 files; 0: the target's; 7 where processors without VNNI saturate",
        "ONNX Runtime",
        low=0,
        high=8,
    ),
)
