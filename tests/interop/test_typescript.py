"""The published TypeScript: it compiles against our types, strictly, and runs in Node against a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.calls.server import API_KEY, ROOT, Server
from tests.interop.conftest import DRIVERS

PUBLISHED = """import { InfraiClient } from "@infrai/sdk";
const client = new InfraiClient({ apiKey: process.env.INFRAI_API_KEY! });
// → client.ai"""
OPTIONS = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "exactOptionalPropertyTypes": True,
        "target": "ES2022",
        "module": "NodeNext",
        "lib": ["ES2022", "DOM", "DOM.Iterable"],
        "types": [],
    },
    "files": ["published.ts"],
}


def test_it_compiles_and_runs(environment: Callable[[str], Path], server: Server, tmp_path: Path) -> None:
    assert PUBLISHED in (DRIVERS / "published.ts").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "realtime" / "web" / "static", tmp_path / "node_modules" / "@infrai" / "sdk")
    shutil.copy(DRIVERS / "published.ts", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps(OPTIONS))
    tsc = environment("vendors") / "node_modules" / "typescript" / "bin" / "tsc"
    compiled = subprocess.run(["node", tsc], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert compiled.returncode == 0, compiled.stdout
    environ = {**os.environ, "INFRAI_API_KEY": API_KEY, "INFRAI_BASE_URL": server.url}
    ran = subprocess.run(
        ["node", "published.js"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert "lamp at the harbour" in answer["result"]["content"]
    assert answer["streamed"]
    assert answer["batched"]["metadata"]["batch_id"]
    assert answer["dimensions"] == 64
    assert answer["images"][0]["url"]
    assert "cannot see" in answer["seen"]["content"]
    assert answer["format"] == "wav"
    assert isinstance(answer["text"], str)
    assert answer["language"] == "en"
    assert answer["token"]["session_id"].startswith("sess_")
