"""Imports run one way, and nothing is hidden inside a function to get around it.

Read from the source, so that an import that never runs counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "realtime": {"realtime", "signaling", "media", "token_service"},
    "signaling": {"signaling", "media", "token_service"},
    "media": {"media"},
    "token_service": {"token_service"},
}
LATE = {
    "realtime.cli": "`realtime --help` must not wait for what a single command needs",
    "realtime.cli_shared": "as realtime.cli",
    "realtime.cli_telephone": "as realtime.cli",
    "realtime.pytest_plugin": "it loads with every pytest of an environment, wanted or not",
    "realtime.agents.remote": "the SDK of MCP is loaded when the settings name a server",
    "realtime.doctor_agents": "as realtime.agents.remote",
    "realtime.adapters.catalogue": "a vendor's SDK is loaded when the settings name the vendor",
    "realtime.gateway.routes": "the library for buckets is loaded when the settings name a bucket",
}
"""Modules that may import modules of ours inside functions, and why; `realtime.client` has a rule of its own."""


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int
    inside_function: bool
    for_types: bool

    @property
    def runs_on_import(self) -> bool:
        return not self.inside_function and not self.for_types

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def sources() -> dict[str, Path]:
    found = {}
    for package in ALLOWED:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def imports_of(module: str) -> Iterator[Import]:
    """Every import of a module of ours, wherever it stands in the file."""
    is_package = SOURCES[module].name == "__init__.py"

    def visit(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                names = from_names(child)
            else:
                names = []
            for name in names:
                if name.partition(".")[0] in ALLOWED:
                    yield Import(module, known(name), child.lineno, inside, typing)
            deeper = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checking = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from visit(child, deeper, typing or checking)

    def from_names(node: ast.ImportFrom) -> list[str]:
        base = node.module or ""
        if node.level:
            around = module.split(".")
            up = around[: len(around) - node.level + (1 if is_package else 0)]
            base = ".".join([*up, *([base] if base else [])])
        # `from package import module` imports the module, `from module import name` the module of that name.
        return [f"{base}.{alias.name}" for alias in node.names]

    def known(name: str) -> str:
        while name not in SOURCES and "." in name:
            name = name.rpartition(".")[0]
        return name

    return visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")), False, False)


IMPORTS = [found for module in SOURCES for found in imports_of(module)]


def test_sees_the_imports_that_everyone_knows_of() -> None:
    pairs = {(found.importer, found.imported) for found in IMPORTS}
    assert ("media.leg", "media.playout") in pairs
    assert ("realtime.adapters.base", "media.audio") in pairs
    assert any(found.inside_function for found in IMPORTS if found.importer == "realtime.cli")


def test_packages_import_only_what_is_below_them() -> None:
    upwards = [
        str(found)
        for found in IMPORTS
        if found.imported.partition(".")[0] not in ALLOWED[found.importer.partition(".")[0]]
    ]
    assert upwards == []


def test_there_is_no_circle_of_modules_not_even_inside_functions() -> None:
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in IMPORTS:
        if found.imported != found.importer:
            graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_only_modules_with_a_reason_import_inside_functions() -> None:
    late = [
        str(found)
        for found in IMPORTS
        if found.inside_function and found.importer not in LATE and not in_client(found.importer)
    ]
    assert late == []


def test_the_python_client_imports_nothing_of_the_server() -> None:
    foreign = [
        str(found)
        for found in IMPORTS
        if in_client(found.importer) and not in_client(found.imported) and found.imported.partition(".")[0] != "media"
    ]
    assert foreign == []


def test_importing_the_python_client_loads_no_media() -> None:
    """Sound is loaded when a call is opened: who only wants a token or a chat does not wait for it."""
    loaded, waiting = set(), ["realtime.client"]
    while waiting:
        module = waiting.pop()
        loaded.add(module)
        waiting += [
            found.imported
            for found in IMPORTS
            if found.importer == module and found.runs_on_import and found.imported not in loaded
        ]
    assert {module for module in loaded if not in_client(module)} == set()


def in_client(module: str) -> bool:
    return module == "realtime.client" or module.startswith("realtime.client.")
