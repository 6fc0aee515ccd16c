"""The images' files: linted, pinned alike, and all that they name is there. No image is built here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgeslim.runtime.devices import JETPACKS
from edgeslim.runtime.devices.abilities import TENSORRT_PIN

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
HADOLINT = Path(sys.executable).with_name("hadolint")


def lint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    command = [str(HADOLINT), "--no-color", "--config", str(DOCKER / "hadolint.yaml"), str(dockerfile)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not in this environment: make setup")
@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM ${BASE}", "FROM python:latest", "DL3007"),
        ("USER 1000:1000", "USER root", "DL3002"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ('CMD ["doctor"]', "CMD doctor", "DL3025"),
        ("--no-install-recommends ", "", "DL3015"),
        ('LABEL org.opencontainers.image.title="edgeslim, CPU and CI"', "LABEL title=edgeslim", "DL3049"),
        ("RUN make setup", "RUN cd $PLACE && make setup", "SC2086"),
    ],
)
def test_the_linter_finds_planted_faults(old: str, new: str, rule: str, tmp_path: Path) -> None:
    text = (DOCKER / "Dockerfile.cpu").read_text()
    assert old in text
    planted = tmp_path / "Dockerfile"
    planted.write_text(text)
    assert lint(planted).returncode == 0, lint(planted).stdout
    planted.write_text(text.replace(old, new))
    done = lint(planted)
    assert done.returncode != 0
    assert rule in done.stdout


def test_every_ignored_rule_has_its_reason() -> None:
    lines = (DOCKER / "hadolint.yaml").read_text().splitlines()
    ignored = [number for number, line in enumerate(lines) if re.match(r"\s+- (DL|SC)\d+$", line)]
    assert len(ignored) == len(yaml.safe_load("\n".join(lines))["ignored"])
    assert all(lines[number - 1].lstrip().startswith("#") for number in ignored)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest) with continued lines joined."""
    kept = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(kept).replace("\\\n", " ").splitlines()
    parts = [line.split(None, 1) for line in joined if line.strip()]
    return [(first, rest) for first, rest in parts]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_run_as_a_user_and_hold_no_engines(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    arguments = dict(rest.partition("=")[::2] for name, rest in found if name == "ARG" and "=" in rest)
    assert re.search(r":.*\d+\.\d+\.\d+", arguments["BASE"]), "a base image with its full version"
    assert {rest.split()[0] for name, rest in found if name == "FROM"} == {"${BASE}"}
    assert [rest for name, rest in found if name == "USER"][-1] == "1000:1000"
    assert ("VOLUME", "/work") in found
    assert ("ENTRYPOINT", '["edgeslim"]') in found
    last_root = max(i for i, (name, rest) in enumerate(found) if name == "USER")
    assert not any(name in ("COPY", "ADD") for name, _ in found[last_root + 1 :])
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert arguments["VERSION"] == declared[1]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there(dockerfile: Path) -> None:
    for name, rest in instructions(dockerfile):
        if name == "COPY" and "--from" not in rest:
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)


def test_images_and_doctor_agree_on_versions() -> None:
    assert f"ARG TENSORRT={TENSORRT_PIN}\n" in (DOCKER / "Dockerfile.desktop").read_text()
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    newest = next(row for row in JETPACKS if row.name.startswith("7.2 "))
    arguments = services["jetpack7"]["build"]["args"]
    assert arguments["TENSORRT"].startswith(newest.tensorrt)
    assert newest.cuda is not None
    assert f"cuda:{newest.cuda}." in arguments["BASE"]
    assert arguments["CUDA_BINDINGS"].startswith(newest.cuda)
    comment = (DOCKER / "Dockerfile.jetson").read_text().partition("\nARG ")[0]
    assert all(f"{name}={value}" in comment for name, value in arguments.items()), "the comment gives the same line"


def test_compose_names_existing_files_and_declared_arguments() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert set(services) == {"cpu", "ci", "desktop", "jetpack6", "jetpack7"}
    for service in services.values():
        context = (DOCKER / service["build"]["context"]).resolve()
        assert context == ROOT
        dockerfile = context / service["build"]["dockerfile"]
        assert dockerfile in DOCKERFILES
        declared = {rest.partition("=")[0] for name, rest in instructions(dockerfile) if name == "ARG"}
        assert set(service["build"].get("args", {})) <= declared
    assert (ROOT / services["ci"]["entrypoint"][0]).stat().st_mode & 0o100
    for name, gpu in {"desktop": "deploy", "jetpack6": "runtime", "jetpack7": "runtime"}.items():
        assert gpu in services[name]


def test_the_readme_names_existing_files() -> None:
    text = (DOCKER / "README.md").read_text()
    named = set(re.findall(r"docker/[\w.]+[\w]", text))
    assert {f"docker/{path.name}" for path in DOCKERFILES} <= named
    assert all((ROOT / name).is_file() for name in named)


def test_the_context_leaves_out_environments_results_and_engines() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "runs", "work", "**/*.bundle", "**/*.engine"} <= set(ignored)
