"""Stands for `edgeslim build` on the board: it reads the bundle for real, and what it calls an engine is no engine.

It keeps the contract that a remote build relies on (arguments, JSON on stdout, log on stderr, exit codes), and breaks
it as `fault.json` in the folder of $STAND_IN says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from edgeslim.runtime import read_bundle


def main() -> int:
    """Build, or fail as told."""
    place = Path(os.environ["STAND_IN"])
    fault = json.loads((place / "fault.json").read_text())
    kind = fault.get("fault", "")
    parser = argparse.ArgumentParser("stand-in")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", action="store_true", required=True)
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    options = parser.parse_args()
    with (place / "calls").open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    print("reading the bundle", file=sys.stderr, flush=True)
    bundle = read_bundle(options.bundle)
    if kind == "waits":
        try:
            while not (place / "go").exists():
                time.sleep(0.02)
                (place / "waiting").touch()
        except KeyboardInterrupt:
            (place / "interrupted").touch()
            return 130
        finally:
            (place / "waiting").unlink(missing_ok=True)
    if kind == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        (place / "waiting").touch()
        time.sleep(600)
    if kind == "error":
        print("note: \x1b[31mabout to fail\x07", file=sys.stderr)
        print("error: no TensorRT here\nhint: install it\nby JetPack", file=sys.stderr)
        return 1
    if kind == "check":
        print("error: the engine differs by 0.5 at node conv1\nhint: build with fp32", file=sys.stderr)
        return 3
    if kind == "no verb":
        print("Usage: edgeslim\nError: No such command 'build'.", file=sys.stderr)
        return 2
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "garbage":
        print("hello \x1b[2J")
        return 0
    content = b"engine " + bundle.manifest_sha256.encode() + options.precision.encode()
    content += random.Random(0).randbytes(int(fault.get("bytes", 100_000)))
    digest = hashlib.sha256(content).hexdigest()
    options.cache.mkdir(parents=True, exist_ok=True)
    engine = options.cache / f"{digest[:16]}-{options.precision}.engine"
    engine.write_bytes(content)
    sidecar = engine.with_suffix(".json")
    sidecar.write_text(json.dumps({"sha256": digest, "precision": options.precision}))
    told = {
        "engine": str(engine),
        "sidecar": str(sidecar),
        "sha256": "0" * 64 if kind == "other hash" else digest,
        "bytes": len(content),
        "precision": options.precision,
        "seconds": 1.5,
        **fault.get("told", {}),
    }
    print("built", file=sys.stderr)
    print(
        json.dumps(
            {
                "engines": [] if kind == "none" else [told, told] if kind == "twice" else [told],
                "tensorrt": "none, a stand-in",
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
