"""x86 with AVX-512, by ONNX Runtime or OpenVINO: vectors of 16 floats."""

from mggc_edge.compiler.targets.base import ANYWHERE, EIGHT, FLOAT, Alignment, Target

PASSES = {
    **ANYWHERE,
    "thin_layer": "a convolution fills vectors with its outputs: 3 outputs leave most lanes empty",
    "transposed_convolution": "its sums are scattered, a convolution's are not; this pays once DepthToSpace is fast",
    "depth_to_space": "ONNX Runtime's own moves value by value",
}

TARGET = Target(
    name="x86-avx512",
    lanes=16,
    passes=PASSES,
    precisions={
        FLOAT: "vectors of 16 floats; OpenVINO computes it in bfloat16 where the processor has that",
        EIGHT: "VNNI takes 64 products of bytes an instruction, 4 times as many as floats",
    },
    align=Alignment(16, "ONNX Runtime convolves blocks of 16 channels, and fills the last one up with zeros"),
)
