"""64-bit Arm, by ONNX Runtime: NEON, vectors of 4 floats or 8 halves."""

from mggc_edge.compiler.targets.base import ANYWHERE, EIGHT, FLOAT, HALF, Alignment, Target

TARGET = Target(
    name="arm64",
    lanes=4,
    passes={
        **ANYWHERE,
        "thin_layer": "a single output leaves 3 of 4 lanes empty; 3 outputs fill them, and are left alone",
        "depth_to_space": "ONNX Runtime's own, which a thin layer ends in, moves value by value",
    },
    precisions={
        FLOAT: "every processor has it",
        HALF: "twice the lanes from Armv8.2 on",
        EIGHT: "dot products of 4 bytes a lane from Armv8.2 on; symmetric activations, S8S8",
    },
    align=Alignment(8, "two vectors of floats, and one of halves"),
)
