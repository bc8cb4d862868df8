"""Limits on the size of functions and files of nnopt."""

from __future__ import annotations

import ast
from pathlib import Path

NNOPT = Path(__file__).resolve().parents[1] / "nnopt"
FILES = {str(path.relative_to(NNOPT)): path.read_text("utf-8") for path in NNOPT.rglob("*.py")}


def test_files_have_at_most_350_lines() -> None:
    assert [name for name, text in FILES.items() if text.count("\n") > 350] == []


def test_functions_have_at_most_60_lines() -> None:
    functions = [
        (name, node.name, (node.end_lineno or 0) - node.lineno + 1)
        for name, text in FILES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 1000
    assert [function for function in functions if function[2] > 60] == []
