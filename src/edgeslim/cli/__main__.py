"""`python -m edgeslim.cli` is `edgeslim`."""

from . import main

main()
