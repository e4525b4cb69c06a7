"""Load heavy libraries late, and explain their absence with the line that installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from mggc_edge.errors import MissingDependencyError


def install_line(extra: str) -> str:
    """Return the command that installs the optional dependencies named `extra`."""
    return f'pip install "mggc-edge[{extra}]"'


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module` and return it.

    Raises:
        MissingDependencyError: the module, or something it needs, cannot be imported; the hint is the install line of
            the optional dependencies `extra`.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{module} cannot be imported here: {error}", hint=install_line(extra)) from error
