"""The contract of a graph pass, and what runs a list of them: a model in; a model, and what became of every site, out.

A pass names the operators that it looks at; every node of such an operator in the top graph is a site. At each it
either rewrites, exactly, or raises `Unfit` with the precondition that does not hold. A pass applied twice finds nothing
to do the second time.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mggc_edge.compiler.passes.editor import Editor, Unfit
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MIN_OPSET = 13


class GraphPass(Protocol):
    """One exact rewrite.

    Attributes:
        name: as `export.passes` and the printed table have it.
        operators: what its sites are.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def operators(self) -> frozenset[str]:
        """See above."""

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Rewrite one site in place.

        Raises:
            Unfit: a precondition does not hold; nothing has been changed.
        """


@dataclass(frozen=True)
class PassReport:
    """What became of the sites of one pass: the name of the node, and None where it was rewritten, else the reason."""

    name: str
    sites: tuple[tuple[str, str | None], ...]

    @property
    def applied(self) -> int:
        """At how many sites the graph was rewritten."""
        return sum(reason is None for _, reason in self.sites)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many sites were left as they are, by reason, the most frequent first."""
        return dict(Counter(reason for _, reason in self.sites if reason is not None).most_common())

    def to_json(self) -> dict[str, Any]:
        """Return it as the JSON of `export` and the manifest have it."""
        return {"name": self.name, "applied": self.applied, "not_applied": dict(self.reasons)}


def apply_passes(model: onnx.ModelProto, passes: Sequence[GraphPass]) -> tuple[onnx.ModelProto, tuple[PassReport, ...]]:
    """Run passes over a model, in their order.

    Returns:
        A new model, or the same one where no site was rewritten, and a report for every pass.

    Raises:
        ArtifactError: the model's opset is below 13.
        MissingDependencyError: onnx-ir is not installed.
    """
    if not passes:
        return model, ()
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < MIN_OPSET:
        raise ArtifactError(
            f"graph passes need opset {MIN_OPSET}, and the file has opset {opset}",
            hint="export it with a newer opset, or set export.passes=none",
        )
    ir_module = require("onnx_ir", extra="onnx")
    copy = type(model)()
    copy.CopyFrom(model)
    # What a file says of its inner shapes may not be so: they are inferred from its inputs.
    del copy.graph.value_info[:]
    rewritten = ir_module.from_proto(copy)
    del copy
    reports = []
    for graph_pass in passes:
        _infer_shapes(rewritten)
        reports.append(_apply(graph_pass, rewritten))
    if not any(report.applied for report in reports):
        return model, tuple(reports)
    require("onnx_ir.passes.common", extra="onnx").RemoveUnusedNodesPass()(rewritten)
    result: onnx.ModelProto = ir_module.to_proto(rewritten)
    del result.graph.value_info[:]
    return result, tuple(reports)


def _apply(graph_pass: GraphPass, model: ir.Model) -> PassReport:
    editor = Editor(model)
    sites: list[tuple[str, str | None]] = []
    for node in [
        node for node in model.graph if node.op_type in graph_pass.operators and node.domain in ("", "ai.onnx")
    ]:
        reason: str | None = None
        if node.graph is None:  # an earlier site of this pass took it out
            continue
        try:
            graph_pass.rewrite(node, editor)
        except Unfit as unfit:
            reason = str(unfit)
        sites.append((node.name or "", reason))
    return PassReport(graph_pass.name, tuple(sites))


def _infer_shapes(model: ir.Model) -> None:
    passes = require("onnx_ir.passes.common", extra="onnx")
    with _silent():
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep to itself that shapes could not be inferred: a pass that needs them gives it as its reason."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
