"""What loads what: everything imports, the light doors stay light, the device side never meets torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERBS = ("compress", "train", "export", "quantize", "build", "bench", "inspect", "doctor")
OF_PROFILE = ("measure", "check", "net", "show", "merge")
HEAVY = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnx_ir",
    "onnxscript",
    "pydantic",
    "yaml",
    "PIL",
    "matplotlib",
    "rich",
    "scipy",
)
TRAINING = (
    "torch",
    "torchvision",
    "lightning_fabric",
    "torchmetrics",
    "kornia",
    "safetensors",
    "pydantic",
    "onnx",
    "onnx_ir",
)

EVERY_MODULE = """
import importlib, json, pkgutil, traceback
import edgeslim
failed = {}
names = [m.name for m in pkgutil.walk_packages(edgeslim.__path__, "edgeslim.")]
for name in names:
    if name.endswith(".__main__"):
        continue  # running it is what it is for
    try:
        importlib.import_module(name)
    except Exception:
        failed[name] = traceback.format_exc()
print(json.dumps([names, failed]))
"""
BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import edgeslim, {modules}
print(sorted(name for name in {blocked!r} if sys.modules.get(name) is not None))
"""


def python(code: str) -> str:
    """What a fresh interpreter prints for this code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports() -> None:
    names, failed = json.loads(python(EVERY_MODULE))
    pycuda = failed.pop("edgeslim.runtime.backends.tensorrt.memory.pycuda", "")
    assert not pycuda or "DeviceError: PyCUDA cannot be imported" in pycuda  # it is only for boards that have it
    assert not failed, "\n".join(failed.values())
    for folder in ("trainer", "exporter", "runtime", "bench", "cli"):
        files = {p for p in (ROOT / "src" / "edgeslim" / folder).rglob("*.py") if p.name != "__init__.py"}
        seen = {name for name in names if name.startswith(f"edgeslim.{folder}.")}
        packages = {p.parent for p in (ROOT / "src" / "edgeslim" / folder).rglob("__init__.py")}
        assert len(seen) == len(files) + len(packages) - 1, "a folder without __init__.py hides its modules"


def test_importing_edgeslim_loads_nothing_heavy() -> None:
    code = f"import sys, edgeslim, edgeslim.errors; print([n for n in {HEAVY!r} if n in sys.modules])"
    assert python(code).strip() == "[]"


def test_every_public_name_resolves() -> None:
    code = "import edgeslim; print([n for n in edgeslim.__all__ if getattr(edgeslim, n, None) is None])"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("modules", ["edgeslim.runtime", "edgeslim.bench", "edgeslim.runtime.backends.onnxruntime"])
def test_the_device_side_needs_no_training_package(modules: str) -> None:
    assert python(BLOCKED.format(blocked=TRAINING, modules=modules)).strip() == "[]"


@pytest.mark.parametrize("verb", [*VERBS, "profile", *(f"profile {name}" for name in OF_PROFILE)])
def test_help_of_every_verb_loads_nothing_heavy(verb: str) -> None:
    code = f"""
import sys
sys.argv = ["edgeslim", *"{verb}".split(), "--help"]
from edgeslim.cli import main
try:
    main()
except SystemExit as end:
    loaded = [n for n in ("torch", "onnx", "onnxruntime", "numpy") if n in sys.modules]
    print("exit", end.code, loaded)
"""
    text = python(code)
    assert f"edgeslim {verb}" in text
    assert text.rstrip().endswith("exit 0 []"), text


def test_all_verbs_are_tested() -> None:
    code = "from edgeslim.cli.app import app; print([c.name for c in app.registered_commands])"
    assert python(code).strip() == str(list(VERBS))
    code = "from edgeslim.cli.app import app; print([(g.name, [c.name or c.callback.__name__ for c in "
    code += "g.typer_instance.registered_commands]) for g in app.registered_groups])"
    assert python(code).strip() == str([("profile", list(OF_PROFILE))])


def test_import_rules() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
