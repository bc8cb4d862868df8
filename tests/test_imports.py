"""A package imports only from packages that ``PACKAGES`` lists before it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = "errors random schema io data results architecture terminal backends config"
PACKAGES += " analysis pruning training report plots recipe sweeps cli"
LEVELS = {name: level for level, name in enumerate(PACKAGES.split())}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "nnopt").rglob("*.py"))
}


def imported_modules(module: str) -> set[str]:
    """Return the modules of nnopt that a module imports, at the top or within a function."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            inside = [f"{node.module}.{name.name}" for name in node.names]
            names |= {name if name in MODULES else str(node.module) for name in inside}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    return (names & set(MODULES)) - {module, "nnopt"}


def test_imports_between_packages_point_one_way() -> None:
    def level(module: str) -> int:
        return LEVELS.get(module.split(".")[1], len(LEVELS))  # __main__ may import every package

    edges = [(a, b) for a in MODULES if a != "nnopt" for b in imported_modules(a)]
    assert [f"{a} imports {b}" for a, b in edges if level(b) > level(a)] == []


def test_imports_between_files_have_no_cycle() -> None:
    TopologicalSorter({name: imported_modules(name) for name in MODULES}).prepare()


def test_package_top_level_has_at_most_21_entries() -> None:
    entries = [path.name for path in (ROOT / "nnopt").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 21, sorted(entries)
