"""What a target is: data, each part with the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mggc_edge.errors import ArtifactError

FLOAT, HALF, EIGHT = "fp32", "fp16", "int8"


@dataclass(frozen=True)
class Alignment:
    """The multiple of channels that a target runs at full speed, and why."""

    multiple: int
    why: str


@dataclass(frozen=True)
class Opsets:
    """The versions of the ONNX operators that a target's parser reads, both included, and why."""

    lowest: int
    highest: int
    why: str


@dataclass(frozen=True)
class Target:
    """What a graph is rewritten for.

    Attributes:
        name: of the folder below `export/`.
        lanes: floats in a vector.
        passes: by name, in their order, each with the reason why it is in the list.
        precisions: by name, the one to take first at the front, each with the reason.
        align: what `--align auto` rounds widths to; None where no multiple is better than another.
        opsets: None where every version that the passes take will do.
    """

    name: str
    lanes: int
    passes: Mapping[str, str]
    precisions: Mapping[str, str]
    align: Alignment | None = None
    opsets: Opsets | None = None

    def check_opset(self, opset: int) -> None:
        """Raise ArtifactError unless the target reads graphs of this operator version."""
        if self.opsets is None or self.opsets.lowest <= opset <= self.opsets.highest:
            return
        low = opset < self.opsets.lowest
        wanted = f"{self.opsets.lowest} or newer" if low else f"{self.opsets.highest} or older"
        raise ArtifactError(
            f"opset {opset} is too {'low' if low else 'high'} for the target {self.name}: {self.opsets.why}",
            hint=f"export with opset {wanted}",
        )


# Passes that leave work out, on any engine.
ANYWHERE: Mapping[str, str] = {
    "fold_batch_norm": "an operator less; what it multiplied by goes into weights",
    "dead_bias": "nothing is added that is taken away again",
    "merge_pad": "a copy of the picture less, where the engine does not do it by itself",
}
