"""`python -m mggc_edge.cli`, for where the program `mggc-edge` is not on the path."""

from mggc_edge.cli.main import main

main()
