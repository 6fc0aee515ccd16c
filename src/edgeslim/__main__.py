"""`python -m edgeslim` is `edgeslim`, for launchers that start modules: torchrun -m edgeslim ..."""

from edgeslim.cli import main

main()
