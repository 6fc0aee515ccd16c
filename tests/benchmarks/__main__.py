"""Measure what edgeslim promises about its own speed: `make bench`."""

from __future__ import annotations

import warnings

from . import compiler, import_time, l0_step, session_overhead, width_programme


def main() -> None:
    """Print one Markdown table."""
    print("| what | median (middle half) | beside |\n|---|---|---|")
    warnings.simplefilter("ignore")  # torch's exporter warns about itself
    for module in (import_time, session_overhead, compiler, l0_step, width_programme):
        module.main()


if __name__ == "__main__":
    main()
