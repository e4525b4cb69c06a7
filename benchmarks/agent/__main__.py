"""The program that this folder, or an archive of it, is: `python agent worker`."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

NAME = "mggc_agent"  # what the folder is called as a package, wherever it lies and whatever its own name is


def main() -> None:
    """Do the job that the command line names."""
    place = Path(__file__).resolve().parent
    # Python puts the place of a program first; its modules must not stand in for libraries of the same name.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != place]
    package = ModuleType(NAME)
    package.__path__ = [str(place)]
    sys.modules[NAME] = package
    import_module(f"{NAME}.{sys.argv[1]}").main()


if __name__ == "__main__":
    main()
