"""Carries out a Dockerfile without a container engine: each stage is a copy of a Debian root, entered with chroot.

It knows the instructions that ours uses and refuses others. A stage shares the machine's network and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STEP_S = 900.0
_REACHING_OUT = re.compile(
    r"PIP_(CERT|INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|SSL_CERT_FILE|https?_proxy|no_proxy", re.I
)
"""How this machine reaches package servers: part of the network, not of the image."""


@dataclass
class Stage:
    """`user`: as in USER; `command`: ENTRYPOINT and CMD together; `health`: the command of HEALTHCHECK."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def enter(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs `command` in here as the image would."""
        whole = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **self.env, **(env or {})}
        script = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(command)}"
        pairs = [f"{name}={value}" for name, value in whole.items()]
        return ["chroot", f"--userspec={self.user}", str(self.root), "env", "-i", *pairs, "sh", "-ec", script]

    def run(self, script: str) -> None:
        outside = {name: value for name, value in os.environ.items() if _REACHING_OUT.fullmatch(name)}
        for name in ("SSL_CERT_FILE", "PIP_CERT"):
            if name in outside:
                inside = self.root / outside[name].lstrip("/")
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(outside[name], inside)
        shutil.copyfile("/etc/resolv.conf", self.root / "etc/resolv.conf")
        env = {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **outside}
        done = subprocess.run(
            self.enter(["sh", "-ec", script], env), capture_output=True, text=True, timeout=STEP_S, check=False
        )
        assert done.returncode == 0, f"RUN {script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def instructions(text: str) -> list[tuple[str, str]]:
    """`(NAME, rest)` of each, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def build(dockerfile: Path, base: Path, folder: Path) -> Stage:
    """The last stage, made in `folder` from copies of the Debian root `base`."""
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for number, (name, rest) in enumerate(instructions(dockerfile.read_text(encoding="utf-8"))):
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            assert image == "debian:bookworm-slim"
            stage = stages[alias or f"stage{number}"] = Stage(folder / (alias or f"stage{number}"))
            subprocess.run(["cp", "-a", str(base), str(stage.root)], check=True)
        else:
            _step(stage, name, rest, dockerfile.parent, stages)
    return stage


def _step(stage: Stage, name: str, rest: str, context: Path, stages: Mapping[str, Stage]) -> None:
    match name:
        case "RUN":
            stage.run(rest)
        case "COPY":
            _copy(stage, shlex.split(rest), context, stages)
        case "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        case "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        case "CMD":
            stage.command = json.loads(rest)
        case "HEALTHCHECK":
            stage.health = json.loads(rest[rest.index("CMD") + 3 :])
        case "VOLUME" | "EXPOSE":
            pass
        case _:
            raise AssertionError(f"{name} is not known here")


def _copy(stage: Stage, words: list[str], context: Path, stages: Mapping[str, Stage]) -> None:
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    into = stage.root / (target if target.startswith("/") else f"{stage.workdir}/{target}").lstrip("/")
    for name in names:
        given = source / name.lstrip("/")
        place = into / given.name if target.endswith("/") else into
        place.parent.mkdir(parents=True, exist_ok=True)
        if given.is_dir():
            shutil.copytree(given, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(given, place)
