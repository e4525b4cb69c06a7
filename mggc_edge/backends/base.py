"""What every inference engine offers: a runner that is entered, fed and left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from mggc_edge.errors import FeedError
from mggc_edge.tensors import Array, Feeds, TensorSpec


class Runner(Protocol):
    """An opened artifact. The engine's resources live between `__enter__` and `__exit__`."""

    @property
    def name(self) -> str:
        """What is run, for people."""

    @property
    def engine(self) -> str:
        """The engine's name, as `--runtime` has it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, types and shapes of what `infer` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, types and shapes of what `infer` gives."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the artifact says of itself: input size, range, colour order, lineage."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def infer(self, feeds: Feeds) -> dict[str, Array]:
        """Run once and return the outputs by name."""


class BaseRunner(ABC):
    """Shared half of every runner: it checks what goes in, an engine only works.

    A subclass sets `engine` and implements `_open` (which returns inputs and outputs), `_infer` and `_close`.
    """

    engine: str

    def __init__(self, name: str, metadata: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.metadata: Mapping[str, Any] = metadata or {}
        self._specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, types and shapes of what `infer` takes."""
        return self._entered()[0]

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, types and shapes of what `infer` gives."""
        return self._entered()[1]

    def __enter__(self) -> BaseRunner:
        try:
            self._specs = self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._specs = None
        self._close()

    def infer(self, feeds: Feeds) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: one array per input, by name, of exactly the input's type and shape.

        Returns:
            The outputs by name.

        Raises:
            FeedError: an input is missing, unknown, or of another type or shape; or the runner is not open.
        """
        inputs, _ = self._entered()
        if set(feeds) != {tensor.name for tensor in inputs}:
            wanted = ", ".join(tensor.name for tensor in inputs)
            raise FeedError(f"{self.name} takes the inputs {wanted}, not {', '.join(feeds) or 'none'}")
        for tensor in inputs:
            array = feeds[tensor.name]
            if not tensor.accepts(array):
                shape = "x".join("any" if size is None else str(size) for size in tensor.shape)
                given = "x".join(map(str, array.shape))
                raise FeedError(f"input '{tensor.name}' must be {tensor.dtype} {shape}, not {array.dtype.name} {given}")
        return self._infer(feeds)

    def _entered(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        if self._specs is None:
            raise FeedError(f"{self.name} is not open", hint="use it in a `with` block")
        return self._specs

    @abstractmethod
    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]: ...

    @abstractmethod
    def _infer(self, feeds: Feeds) -> dict[str, Array]: ...

    @abstractmethod
    def _close(self) -> None: ...
