"""docs/findings.md, and the figures of other documents, compared with the recorded runs."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from nnopt.analysis.comparison import compare_runs
from nnopt.analysis.tabulate import tabulate
from nnopt.cli.main import run_verb
from nnopt.results.collect import find_runs

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("findings")


def test_figures_agree_with_recorded_runs(script: ModuleType) -> None:
    assert list(script.find_problems()) == []


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("97.63 ± 0.16", True),
        ("0.9763 ± 0.0016", True),
        ("97.6 ± 0.2", True),
        ("97.64 ± 0.16", False),
        ("97.63 ± 0.17", False),
        ("97.62 ± 0.16", False),
    ],
)
def test_mean_agrees_if_it_rounds_to_text(script: ModuleType, text: str, agrees: bool) -> None:
    match = re.fullmatch(script.MEAN, text)
    assert match is not None
    assert script.agrees(match, 0.976312, 0.001584) is agrees


def test_changed_figure_is_reported(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = script.PAGE.read_text("utf-8")
    changed = tmp_path / "findings.md"
    changed.write_text(page.replace("98.17 ± 0.07", "98.71 ± 0.07"), "utf-8")
    monkeypatch.setattr(script, "documents", lambda: [(changed, ["sparsity_mnist"])])
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    wrong, *_ = script.find_problems()
    assert wrong == "findings.md: 98.71 ± 0.07 does not match any recorded setting"


def test_page_that_differs_from_template_is_reported(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "page.jinja"
    template.write_text(script.TEMPLATE.read_text("utf-8") + "One more line.\n", "utf-8")
    monkeypatch.setattr(script, "TEMPLATE", template)
    (stale,) = script.find_problems()
    assert stale.startswith("findings.md differs from its template")


def test_hard_coded_figure_in_template_is_reported(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "page.jinja"
    text = "**Claim.** At 97.9 %.\n\n`lr=0.5` {{ 0.25 }}\n\n**Verdict: holds.** It has 98.1 %.\n"
    template.write_text(text, "utf-8")
    monkeypatch.setattr(script, "TEMPLATE", template)
    found = [problem for problem in script.find_problems() if "hard-coded" in problem]
    assert found == ["page.jinja: '8.1' is hard-coded; replace it by an expression"]


def test_recorded_sweep_gives_the_table_of_compare(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a study contains what the table of ``nnopt compare`` shows."""
    sweep = tmp_path / "sweep"
    overrides = ["optimizer=sgd,adam", "optimizer.lr=0.1,1e-3", "seed=range(2)", "epochs=2"]
    assert run_verb(["run", "-m", *overrides, f"hydra.sweep.dir={sweep}", "plots=false"]) == 0
    monkeypatch.setattr("study_files.FOLDER", tmp_path)
    script.write_study("two", [sweep])
    recorded = compare_runs(script.read_runs("two"), ["test_accuracy", "test_loss"])
    original = compare_runs(find_runs([sweep]).runs, ["test_accuracy", "test_loss"])
    assert tabulate(recorded) == tabulate(original)


def test_unfinished_sweep_is_not_recorded(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study_files.FOLDER", tmp_path)
    sweep = tmp_path / "sweep"
    run_verb(["run", "-m", "seed=range(2)", "epochs=1", f"hydra.sweep.dir={sweep}"])
    shutil.rmtree(next(path for path in sweep.iterdir() if (path / "summary.json").exists()))
    with pytest.raises(SystemExit, match="finish all runs first"):
        script.write_study("half", [sweep])
