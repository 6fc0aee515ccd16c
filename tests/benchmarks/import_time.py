"""How long the imports take, in fresh processes; the promises are 0.1 s for `edgeslim`, 0.5 s for its runtime."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

PROCESSES = 10
CODE = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def main() -> None:
    """Print one row of a Markdown table a module: name, median with the range, number of processes."""
    for module in ("edgeslim", "edgeslim.runtime"):
        seconds = sorted(import_seconds(module) for _ in range(PROCESSES))
        spread = f"{seconds[0]:.3f} to {seconds[-1]:.3f}"
        print(f"| import {module} | {median(seconds):.3f} s ({spread}) | n = {PROCESSES} processes |")


def import_seconds(module: str) -> float:
    """Seconds that `import module` takes in a fresh interpreter, without the interpreter's own start."""
    command = [sys.executable, "-c", CODE.format(module=module)]
    return float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


if __name__ == "__main__":
    main()
