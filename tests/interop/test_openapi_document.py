"""schemathesis over the OpenAPI document of the one-shot endpoints: nothing it makes up gives a 500 or an answer
that the document does not have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.calls.server import API_KEY, Server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
RUN_S = 400.0


def test_every_answer_is_one_that_the_document_has(environment: Callable[[str], Path], tmp_path: Path) -> None:
    command = [str(environment("schemathesis") / "bin" / "schemathesis"), "run"]
    options = ["--checks", CHECKS, "--include-tag", "ai", "--phases", "examples,coverage,fuzzing", "--no-color"]
    options += ["--max-examples", "25", "--seed", "1", "--request-timeout", "30", "--generation-database", "none"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with Server(tmp_path / "server", config="[limits]\nrequests_per_minute = 10000000\n") as server:
        done = subprocess.run(
            [*command, f"{server.url}/openapi.json", *options, "--header", f"Authorization: Bearer {API_KEY}"],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
        assert "Traceback" not in server.log()
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "0 generated" not in done.stdout
