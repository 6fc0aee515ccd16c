"""Which member exists in which TensorRT: read from `api-surface.txt`, which introspection of the wheels has written.

Versions are named as there: "86" is 8.6.1, "103" 10.3, "107" 10.7, "1013" 10.13.3, "1016" 10.16.1, "114" 11.4, "rtx" is
TensorRT for RTX 1.7.1.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

VERSIONS = ("86", "103", "107", "1013", "1016", "114", "rtx")
EVERYWHERE = frozenset(VERSIONS)
_FILE = Path(__file__).with_name("api-surface.txt")
TOP_LEVEL = "top-level changes"


@cache
def surface() -> dict[str, dict[str, frozenset[str]]]:
    """Class -> member -> the versions that have it."""
    found: dict[str, dict[str, frozenset[str]]] = {}
    members: dict[str, frozenset[str]] = {}
    for line in _FILE.read_text().splitlines():
        if line.startswith("## "):
            members = found.setdefault(line[3:].strip(), {})
        elif everywhere := re.match(r"\s+in all TRT [^:]*: (\[.*\])$", line):
            members.update({name: EVERYWHERE for name in ast.literal_eval(everywhere[1])})
        elif some := re.match(r"\s+(\w+) (\[.*\])$", line):
            members[some[1]] = frozenset(ast.literal_eval(some[2]))
    return found


def members(kind: str, version: str) -> frozenset[str]:
    """The members of a class in one version."""
    return frozenset(name for name, versions in surface()[kind].items() if version in versions)


def partial() -> dict[str, frozenset[str]]:
    """Members that some versions lack -> the versions in which any class has that name."""
    found: dict[str, frozenset[str]] = {}
    for table in surface().values():
        for name, versions in table.items():
            found[name] = found.get(name, frozenset()) | versions
    everywhere = {name for table in surface().values() for name, v in table.items() if v == EVERYWHERE}
    return {name: versions for name, versions in found.items() if versions != EVERYWHERE and name not in everywhere}
