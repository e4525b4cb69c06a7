"""ONNX Runtime on phones and in minimal builds: .ort files, for the most part on 64-bit Arm."""

from mggc_edge.compiler.targets.base import ANYWHERE, EIGHT, FLOAT, Alignment, Opsets, Target

TARGET = Target(
    name="ort-mobile",
    lanes=4,
    passes={
        **ANYWHERE,
        "reflect_pad": "Core ML and NNAPI have no reflecting Pad, and each would cut the graph where they take it over",
    },
    precisions={
        FLOAT: "every processor has it",
        EIGHT: "a quarter of the file, and dot products of bytes; halves have few kernels in these builds",
    },
    align=Alignment(8, "two vectors of floats on Arm, and one of halves where Core ML computes in them"),
    opsets=Opsets(
        13, 21, "the last prebuilt mobile package, 1.18, reads up to 21, and Q/DQ with a scale each needs 13"
    ),
)
