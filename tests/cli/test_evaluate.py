"""``nnopt evaluate``: the metrics of a run, computed again from its model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Nnopt = Callable[..., int]
Captured = pytest.CaptureFixture[str]

QUICK = ["epochs=2", "plots=false", "progress=none", "dataset.samples_per_class=30"]
QUICK += ["evaluation.predictions=true", "hydra.run.dir=run"]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_evaluation_of_each_part_equals_the_results_of_the_run(nnopt: Nnopt, backend: str) -> None:
    assert nnopt("run", *QUICK, f"backend={backend}", "regularizer.norm=batch") == 0
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    summary = json.loads(Path("run/summary.json").read_text())
    names = ("accuracy", "loss", "top5_accuracy", "macro_f1", "calibration_error")
    expected = {
        "test": {name: summary[f"test_{name}"] for name in names},
        "train": {name: summary[f"train_{name}"] for name in names[:2]},
        "validation": {name: summary[f"best_validation_{name}"] for name in names[:1]},
    }
    for part, metrics in expected.items():
        out = f"new/{part}"
        assert nnopt("evaluate", "run", "--part", part, "--out", out, "--predictions") == 0
        found = json.loads(Path(out, "evaluation.json").read_text())
        assert {name: found["metrics"][name] for name in metrics} == metrics
        assert found["samples"] == summary["data"]["samples"][part]
    for name in ("classes.csv", "confusion.csv", "predictions.csv"):
        assert Path("new/test", name).read_bytes() == Path("run", name).read_bytes()
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_evaluation_with_other_weights_and_data_differs(nnopt: Nnopt, capsys: Captured) -> None:
    assert nnopt("run", *QUICK, "optimizer.lr=0.3") == 0
    capsys.readouterr()
    found = []
    for changes in ([], ["--weights", "last"], ["dataset.noise=0.9"], ["dataset.classes=2"]):
        assert nnopt("evaluate", "run", "--format", "json", *changes) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [x["weights"]["epoch"] for x in found] == ["best", "last", "best", "best"]
    assert len({x["metrics"]["loss"] for x in found}) == 4
    assert [x["samples"] for x in found] == [90, 90, 90, 60]
    assert [row["support"] for row in found[3]["classes"]] == [30, 30, 0]
    assert len(list(Path("outputs/evaluate").iterdir())) == 4


def write_table(path: str, names: list[str], seed: int) -> None:
    import numpy as np

    rows = np.random.default_rng(seed).standard_normal((30, 2)).tolist()
    lines = [dict(zip(("x", "y"), row, strict=True)) for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({**line, "kind": "ab"[i % 2]} for i, line in enumerate(lines))


def test_evaluation_matches_the_columns_of_another_table_by_name(nnopt: Nnopt) -> None:
    write_table("train.csv", ["x", "y", "kind"], 0)
    write_table("same.csv", ["kind", "y", "x"], 0)
    files = ["dataset=csv", "dataset.label=kind", "dataset.train=train.csv"]
    others = [x for x in QUICK if not x.startswith("dataset.")]
    assert nnopt("run", *others, *files) == 0
    assert nnopt("evaluate", "run", "--out", "a") == 0
    assert nnopt("evaluate", "run", "--out", "b", "dataset.train=same.csv") == 0
    a, b = (json.loads(Path(x, "evaluation.json").read_text())["metrics"] for x in "ab")
    assert a == b


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["dataset=moons"], 3, "moons has classes that the model does not know: 'upper', 'lower'"),
        (["optimizer.lr=1"], 2, "'optimizer.lr=1': only these keys of the run can change"),
        (["dataset.noize=1"], 2, "did you mean 'dataset.noise'?"),
        (["dataset.noise=0.1,0.2"], 2, "needs a single value"),
        (["--out", "run"], 6, "the folder run is not empty"),
        (["--part", "all"], 2, "invalid choice: 'all'"),
    ],
)
def test_wrong_usage_of_evaluate_command_is_refused(
    nnopt: Nnopt, capsys: Captured, arguments: list[str], code: int, message: str
) -> None:
    assert nnopt("run", *QUICK) == 0
    assert nnopt("evaluate", "run", *arguments) == code
    assert message in capsys.readouterr().err
    assert not Path("outputs/evaluate").exists()


def test_validation_part_of_a_run_without_one_is_refused(nnopt: Nnopt, capsys: Captured) -> None:
    none = ["dataset.validation.source=none", "test_weights=last"]
    assert nnopt("run", *QUICK, *none) == 0
    assert nnopt("evaluate", "run", "--part", "validation") == 2
    assert "the run has no validation part" in capsys.readouterr().err
