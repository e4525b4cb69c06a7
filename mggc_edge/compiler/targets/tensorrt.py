"""TensorRT on an Nvidia GPU. Its precision stands in the file: casts, and Q/DQ."""

from mggc_edge.compiler.targets.base import ANYWHERE, EIGHT, FLOAT, HALF, Alignment, Opsets, Target

TARGET = Target(
    name="tensorrt",
    lanes=8,
    passes=ANYWHERE,  # it chooses among kernels of its own for thin and transposed layers
    precisions={
        HALF: "tensor cores, without calibration",
        EIGHT: "twice the products of halves, for convolutions; with symmetric Q/DQ",
        FLOAT: "what the others are held against",
    },
    align=Alignment(
        8, "tensor cores take 8 halves at a time, and convolutions of other widths are not quantized by Nvidia's tools"
    ),
    opsets=Opsets(13, 20, "TensorRT 10 reads up to 20 in all its versions (8.5 and 8.6 up to 17), and Q/DQ needs 13"),
)
