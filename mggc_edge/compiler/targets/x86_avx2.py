"""x86 with AVX2, by ONNX Runtime or OpenVINO: vectors of 8 floats."""

from mggc_edge.compiler.targets.base import EIGHT, FLOAT, Alignment, Target
from mggc_edge.compiler.targets.x86_avx512 import PASSES

TARGET = Target(
    name="x86-avx2",
    lanes=8,
    passes=PASSES,
    precisions={
        FLOAT: "vectors of 8 floats",
        EIGHT: "32 products of bytes in two instructions; without VNNI, in 7 bits, or they overflow",
    },
    align=Alignment(8, "ONNX Runtime convolves blocks of 8 channels, and fills the last one up with zeros"),
)
