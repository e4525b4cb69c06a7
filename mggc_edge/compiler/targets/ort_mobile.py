"""ONNX Runtime on phones and in minimal builds: .ort files, for the most part on 64-bit Arm.

They run on the processor unless an accelerator takes them over, and ONNX Runtime's usability checker says whether that
is worth it. So `reflect_pad`, which makes a graph slower there, is not listed: whoever hands one to Core ML or NNAPI,
which have no reflecting Pad, names it.
"""

from mggc_edge.compiler.targets.base import ANYWHERE, EIGHT, FLOAT, Alignment, Opsets, Target

TARGET = Target(
    name="ort-mobile",
    lanes=4,
    passes=ANYWHERE,
    precisions={
        FLOAT: "every processor has it",
        EIGHT: "a quarter of the file, and dot products of bytes; halves have few kernels in these builds",
    },
    align=Alignment(8, "two vectors of floats on Arm, and one of halves where Core ML computes in them"),
    opsets=Opsets(
        13, 21, "the last prebuilt mobile package, 1.18, reads up to 21, and Q/DQ with a scale each needs 13"
    ),
)
