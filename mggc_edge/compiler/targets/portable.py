"""Any engine that reads ONNX: what saves work everywhere, and nothing else."""

from mggc_edge.artifacts import PORTABLE
from mggc_edge.compiler.targets.base import ANYWHERE, FLOAT, Target

TARGET = Target(
    name=PORTABLE,
    lanes=16,
    passes=ANYWHERE,
    precisions={FLOAT: "every engine has it"},
)
