"""docs/findings.md, and the figures of other documents, compared with the recorded runs."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnopt.analysis.comparison import compare_runs
from nnopt.analysis.tabulate import tabulate
from nnopt.cli.main import run_verb
from nnopt.errors import ConfigError, NnoptError
from nnopt.results.collect import find_runs
from nnopt.results.summary import CHECKSUM

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("findings", monkeypatch)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("study_figures", monkeypatch)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return the module study_record, which writes to ``tmp_path`` in the test."""
    module = load("study_record", monkeypatch)
    monkeypatch.setattr("study_files.FOLDER", tmp_path)
    return module


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def test_figures_agree_with_recorded_runs(script: ModuleType) -> None:
    assert list(script.find_problems()) == []


def test_number_of_figures_without_recorded_runs_does_not_grow(figures: ModuleType) -> None:
    """Lower the number whenever runs are recorded."""
    assert sum(map(len, figures.NOT_RECORDED.values())) == 18
    names = {row["name"] for row in load_rows(figures)}
    assert not names & set(figures.NOT_RECORDED)


def test_columns_of_files_are_documented(figures: ModuleType) -> None:
    files = importlib.import_module("study_files")
    text = (files.FOLDER / "README.md").read_text("utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    columns = {x for line in table.splitlines() for x in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert columns == {*files.METRICS, *files.ABOUT, files.NAME, files.OVERRIDES}


def load_rows(figures: ModuleType) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = figures.read_rows("experiments")
    return rows


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
def test_mean_agrees_if_it_rounds_to_text(figures: ModuleType, text: str, agrees: bool) -> None:
    assert figures.MEAN.fullmatch(text)
    assert figures.agrees(text, 0.976312, 0.001584) is agrees


ROW = "| {} % | `nnopt run -m experiment={} 'seed=range({})'` |"
RIGHT = ROW.format("98.41 ± 0.06", "mnist_mlp", 5)
OF_MLP = "differs from the runs of mnist_mlp: 98.41 ± 0.06 with 5 seeds"
WRONG = {
    "header": ("98.14 ± 0.06", RIGHT, f"98.14 ± 0.06 {OF_MLP}"),
    "figure of another experiment": (
        "98.41 ± 0.06",
        ROW.format("98.38 ± 0.05", "mnist_mlp", 5),
        f"98.38 ± 0.05 {OF_MLP}",
    ),
    "number of seeds": (
        "98.41 ± 0.06",
        ROW.format("98.41 ± 0.06", "mnist_mlp", 3),
        f"98.41 ± 0.06 {OF_MLP}",
    ),
    "overrides": (
        "98.41 ± 0.06",
        ROW.format("98.41 ± 0.06", "mnist_mlp backend=torch", 5),
        "98.41 ± 0.06 of mnist_mlp backend=torch is not recorded",
    ),
    "no runs": (
        "98.41 ± 0.06",
        ROW.format("98.41 ± 0.06", "mnist_conv", 5),
        "98.41 ± 0.06 of mnist_conv is not recorded",
    ),
}
"""Figure in the header of mnist_mlp, row of the README, message."""


@pytest.mark.parametrize(("header", "row", "message"), WRONG.values(), ids=WRONG)
def test_wrong_figure_of_experiment_is_reported(
    figures: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    header: str,
    row: str,
    message: str,
) -> None:
    command = "python benchmarks/experiments.py mnist_mlp --seeds 5"
    files = {
        "conf/experiment/mnist_mlp.yaml": f"# Test accuracy {header} %.\n# {command}\n",
        "README.md": f"{RIGHT}\n{row}\n",
        "benchmarks.md": "",
    }
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.setattr(figures, "REPOSITORY", tmp_path)
    monkeypatch.setattr(figures, "CONF", tmp_path / "conf")
    monkeypatch.setattr(figures, "README", tmp_path / "README.md")
    monkeypatch.setattr(figures, "BENCHMARKS", tmp_path / "benchmarks.md")
    monkeypatch.setattr(figures, "NOT_RECORDED", {})
    (wrong,) = figures.wrong_figures()
    place = "README.md" if row != RIGHT else "conf/experiment/mnist_mlp.yaml"
    assert wrong.startswith(f"{place}: {message}")


def test_wrong_figure_of_study_is_reported(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = figures.Figure(figures.README, "98.71 ± 0.07", ["sparsity_mnist"])
    right = figures.Figure(figures.README, "98.17 ± 0.07", ["sparsity_mnist"])
    monkeypatch.setattr(figures, "figures", lambda: [wrong, right])
    monkeypatch.setattr(figures, "NOT_RECORDED", {})
    assert list(figures.wrong_figures()) == [
        "README.md: 98.71 ± 0.07 does not match any recorded setting"
    ]


def test_entry_of_list_that_is_recorded_or_not_cited_is_reported(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {**figures.NOT_RECORDED, "mnist_mlp": ("98.41 ± 0.06",), "cifar10_vgg2": ("1 ± 2",)}
    monkeypatch.setattr(figures, "NOT_RECORDED", listed)
    assert [x.partition(",")[0] for x in figures.wrong_figures()] == [
        "NOT_RECORDED lists 1 ± 2 of cifar10_vgg2",
        "NOT_RECORDED lists 98.41 ± 0.06 of mnist_mlp",
    ]


def test_training_time_that_differs_from_benchmarks_is_reported(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(figures.BENCHMARKS.read_text("utf-8").replace("| 16.6 s |", "| 16.7 s |"))
    monkeypatch.setattr(figures, "BENCHMARKS", page)
    assert list(figures.wrong_times()) == [
        "README.md: mnist_mlp takes 16.6 s, not 16.7 s",
        "conf/experiment/mnist_mlp.yaml: 16.6 s differs from 16.7 s",
    ]


def test_changed_configuration_of_recorded_experiment_is_reported(
    figures: ModuleType, recording: ModuleType
) -> None:
    row = {"name": "spiral_regularized", "overrides": "", "seed": "0"}
    (id_,) = recording.composed_ids("spiral_regularized", (), (0,))
    assert list(figures.changed_experiments([{**row, "id": id_}])) == []
    (changed,) = figures.changed_experiments([{**row, "id": f"{id_[:-1]}-"}])
    assert "spiral_regularized has changed since its runs" in changed
    (unknown,) = figures.changed_experiments([{**row, "name": "spiral_gone", "id": id_}])
    assert "spiral_gone" in unknown


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


SHORT = ("epochs=2", "plots=false", "progress=none")


def test_recorded_sweep_gives_the_table_of_compare(
    script: ModuleType, recording: ModuleType, tmp_path: Path
) -> None:
    """The file of a study contains what the table of ``nnopt compare`` shows."""
    sweep = tmp_path / "sweep"
    overrides = ["optimizer=sgd,adam", "optimizer.lr=0.1,1e-3", "seed=range(2)", *SHORT]
    words = ["run", "ablation=optimizer_spiral", *overrides, f"hydra.sweep.dir={sweep}"]
    assert run_verb(words) == 0
    recording.record("optimizer_spiral", [sweep])
    recorded = compare_runs(script.read_runs("optimizer_spiral"), ["test_accuracy", "test_loss"])
    original = compare_runs(find_runs([sweep]).runs, ["test_accuracy", "test_loss"])
    assert tabulate(recorded) == tabulate(original)
    with pytest.raises(ConfigError, match="is a run of 'optimizer_spiral', not of 'l2_spiral'"):
        recording.record("l2_spiral", [sweep])
    row, *_ = script.read_rows("optimizer_spiral")
    run = next(x for x in find_runs([sweep]).runs if x.settings["optimizer"] == "adam")
    assert row["optimizer"] == run.settings["optimizer"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep of an experiment with two seeds and one epoch."""
    sweep = tmp_path_factory.mktemp("sweep") / "sweep"
    words = [
        "run",
        "-m",
        "experiment=spiral_regularized",
        "seed=range(2)",
        "epochs=1",
        "plots=false",
        "progress=none",
    ]
    assert run_verb([*words, f"hydra.sweep.dir={sweep}"]) == 0
    return sweep


def test_recording_an_experiment_keeps_rows_of_others(
    script: ModuleType, recording: ModuleType, experiment: Path, tmp_path: Path
) -> None:
    original = BENCHMARKS.parent / "docs" / "findings" / "experiments.csv"
    shutil.copy(original, tmp_path)
    before = script.read_rows("experiments")
    recording.record("experiments", [experiment])
    recording.record("experiments", [experiment])
    after = script.read_rows("experiments")
    new = [row for row in after if row["overrides"] == "epochs=1"]
    assert [row for row in after if row not in new] == before
    assert {row["name"] for row in new} == {"spiral_regularized"}
    assert [row["seed"] for row in new] == ["0", "1"]
    runs = {str(run.seed): run.metrics for run in find_runs([experiment]).runs}
    for row in new:
        assert float(row["test_accuracy"]) == pytest.approx(runs[row["seed"]]["test_accuracy"])


def test_unusable_runs_are_refused_in_one_line(
    recording: ModuleType, experiment: Path, tmp_path: Path
) -> None:
    def refusal(study: str, folder: Path) -> str:
        with pytest.raises(NnoptError) as error:
            recording.record(study, [folder])
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "did you mean 'sparsity_mnist'?" in refusal("sparsity_minst", experiment)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no run in or below" in refusal("l2_spiral", empty)
    assert "is not a folder" in refusal("l2_spiral", tmp_path / "absent")
    sweep = Path(shutil.copytree(experiment, tmp_path / "copy"))
    summary = next(sweep.glob("*/summary.json"))
    change(summary, status="failed", error="it failed")
    resume = f"finish them first: nnopt resume {sweep}"
    assert f"(1 failed); {resume} --retry-failed" in refusal("experiments", sweep)
    change(summary, status="running", error=None)
    assert f"(1 running or killed); {resume}" in refusal("experiments", sweep)
    shutil.rmtree(summary.parent)
    assert f"(1 without a folder); {resume}" in refusal("experiments", sweep)
    assert not list(tmp_path.glob("*.csv"))


def change(path: Path, **values: Any) -> None:
    """Change values of a summary, whose checksum is removed."""
    summary = json.loads(path.read_text("utf-8")) | values
    summary.pop(CHECKSUM, None)
    path.write_text(json.dumps(summary), "utf-8")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["experiment=spiral_regularized", "seed=0"], "spiral_regularized"),
        (["epochs=1", "seed=0"], "spiral_mlp"),
        (["ablation=l2_spiral", "seed=0"], "spiral_mlp"),
    ],
    ids=["changed since", "default with an override", "ablation"],
)
def test_run_with_another_configuration_is_no_run_of_the_experiment(
    recording: ModuleType, experiment: Path, tmp_path: Path, overrides: list[str], name: str
) -> None:
    sweep = Path(shutil.copytree(experiment, tmp_path / "copy"))
    change(next(sweep.glob("*/summary.json")), overrides=overrides)
    with pytest.raises(ConfigError, match=f"of the experiment '{name}'"):
        recording.record("experiments", [sweep])


def test_command_line_prints_error_in_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["findings.py", "record", "absent", "absent"])
    assert script.main() == 2
    assert capsys.readouterr().err.startswith("error: unknown study 'absent'")


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([2.0, 1.0, 4.0], statistics.mean([0.5, 0.75])),
        ([3.0, 3.0], 0.0),
        ([0.0, 0.0, 1.0], 0.5),
        ([1.0], None),
        ([], None),
        ([1.0, math.nan, 1.0], None),
        ([1.0, math.inf], None),
    ],
)
def test_gradient_variation_is_mean_relative_change_of_norm(
    recording: ModuleType, norms: list[float], expected: float | None
) -> None:
    assert recording.gradient_variation(norms) == expected
    assert recording.gradient_variation([8 * x for x in norms]) == expected  # scale of the loss


def test_only_finished_runs_have_gradient_variation(
    recording: ModuleType, experiment: Path, tmp_path: Path
) -> None:
    """A run of one epoch has no change, and a diverged one has no value."""
    (run, _) = find_runs([experiment], with_summaries=True).runs
    rows = recording.read_metrics(run.folder / "metrics.csv")
    assert recording._smoothness(run) == {}
    table = tmp_path / "metrics.csv"
    lines = (run.folder / "metrics.csv").read_text("utf-8").splitlines()
    norm = repr(rows[0].gradient_norm)
    second = lines[1].replace(norm, repr(rows[0].gradient_norm / 4)).replace("1,", "2,", 1)
    table.write_text("\n".join([*lines, second, ""]), "utf-8")
    longer = type(run)(**{**vars(run), "folder": tmp_path, "checksums": {}})
    assert recording._smoothness(longer) == {"gradient_variation": pytest.approx(0.75)}
    assert recording._smoothness(type(run)(**{**vars(longer), "status": "diverged"})) == {}
