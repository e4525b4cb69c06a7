"""The contract of a graph pass, and what runs a list of them: a model in; a model, and what became of every site, out.

A pass names the operators that it looks at; every node of such an operator in the top graph is a site. At each it
either rewrites, exactly, or raises `Unfit` with the precondition that does not hold. What one pass leaves may be a site
of another, or of itself, so a list is run over a graph until nothing applies, at most MAX_ROUNDS times: a second run
finds nothing to do.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mggc_edge.compiler.passes.editor import SAME, STANDARD, Editor, Unfit
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_History = dict["ir.Node", "str | None"]  # of one pass: the sites that it met, and why one was left, None: it was not

MIN_OPSET = 13
MIN_IR_VERSION = 4  # of files whose initializers need not be inputs too
MAX_ROUNDS = 32


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
    """Run passes over a model, in their order, until none applies.

    Returns:
        A new model, or the same one where no site was rewritten, and a report for every pass.

    Raises:
        ArtifactError: the model's opset is below 13.
        MissingDependencyError: onnx-ir is not installed.
    """
    if not passes:
        return model, ()
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
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
    histories: list[_History] = [{} for _ in passes]
    known = False
    for number in range(MAX_ROUNDS):
        changed = False
        for graph_pass, history in zip(passes, histories, strict=True):
            if not known:
                _infer_shapes(rewritten)
            known = not _apply(graph_pass, rewritten, history, first=number == 0)
            changed |= not known
        if not changed:
            break
    reports = tuple(
        PassReport(graph_pass.name, tuple((node.name or "", reason) for node, reason in history.items()))
        for graph_pass, history in zip(passes, histories, strict=True)
    )
    if not any(report.applied for report in reports):
        return model, reports
    require("onnx_ir.passes.common", extra="onnx").RemoveUnusedNodesPass()(rewritten)
    result: onnx.ModelProto = ir_module.to_proto(rewritten)
    del result.graph.value_info[:]
    result.ir_version = max(result.ir_version, MIN_IR_VERSION)
    return result, reports


def _apply(graph_pass: GraphPass, model: ir.Model, history: _History, *, first: bool) -> bool:
    """Run a pass over all sites once, and return whether one was rewritten.

    A site is reported where the pass met it in its first round, or rewrote it: what passes make of a site is none.
    """
    editor = Editor(model)
    applied = False
    for node in [node for node in model.graph if editor.is_a(node, *graph_pass.operators)]:
        if node.graph is None:  # an earlier site of this pass took it out
            continue
        try:
            graph_pass.rewrite(node, editor)
        except Unfit as unfit:
            if first or history.get(node) is not None:
                history[node] = str(unfit)
        else:
            history[node] = None
            applied = True
    return applied


def _infer_shapes(model: ir.Model) -> None:
    """Infer the shapes of all values, and leave those open that engines may see otherwise.

    ONNX Runtime does not give a ConvTranspose that is padded by its size (auto_pad SAME, output_shape) the size that
    ONNX's inference says, so sizes behind one are not known; nor are those behind subgraphs and operators of other
    domains, in which one may be.
    """
    ir_module = require("onnx_ir", extra="onnx")
    passes = require("onnx_ir.passes.common", extra="onnx")
    with _silent():
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    editor, doubtful = Editor(model), set()
    for node in model.graph:  # inputs come before their readers
        if _sized_otherwise(node, editor) or any(value in doubtful for value in node.inputs):
            for value in node.outputs:
                doubtful.add(value)
                if value.shape is not None and not value.is_graph_output():
                    value.shape = ir_module.Shape([*value.shape[:2], *[None] * (len(value.shape) - 2)])


def _sized_otherwise(node: ir.Node, editor: Editor) -> bool:
    if node.domain not in STANDARD or any(entry.type.name in ("GRAPH", "GRAPHS") for entry in node.attributes.values()):
        return True
    by_size = editor.attribute(node, "auto_pad", "NOTSET") in SAME or "output_shape" in node.attributes
    return not editor.is_a(node, node.op_type) or (by_size and editor.is_a(node, "ConvTranspose"))


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
