"""``optimizer.lr=auto``: the learning rate found, the resulting run, and failed searches."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nnopt.schema import Config, learning_rate
from nnopt.training.lr_finder import LrCurve, LrSuggestion

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SMALL = ("dataset.samples_per_class=40", "architecture.hidden=[8]", "epochs=3", "plots=false")


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return summary


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule=cosine", "regularizer.weight_decay=0.01", "regularizer.ema_decay=0.9"),
        ("backend=torch", "optimizer=adam", "backend.threads=1"),
        ("backend=torch", "optimizer=schedule_free_sgd", "schedule.warmup_epochs=1"),
    ],
    ids=["numpy", "torch", "schedule-free"],
)
def test_auto_lr_run_equals_run_with_suggested_rate(
    nnopt: Run, capsys: Captured, workplace: Path, overrides: tuple[str, ...]
) -> None:
    overrides = (*SMALL, *overrides, "regularizer.dropout=0.2", "regularizer.norm=batch", "seed=3")
    assert nnopt("run", *overrides, "optimizer.lr=auto", "hydra.run.dir=a") == 0
    found = summary_of(workplace / "a")["suggested_lr"]
    curve = (workplace / "a" / "lr_find.csv").read_bytes()
    steps = len(curve.splitlines()) - 1
    stdout = capsys.readouterr().out.splitlines()
    assert stdout[0] == f"optimizer.lr = {found:g}, found in {steps} steps"

    assert nnopt("run", *overrides, f"optimizer.lr={found!r}", "hydra.run.dir=b") == 0
    assert summary_of(workplace / "b")["suggested_lr"] is None
    assert not (workplace / "b" / "lr_find.csv").exists()
    assert rows_of(workplace / "a" / "metrics.csv") == rows_of(workplace / "b" / "metrics.csv")
    for name in ("model_last.npz", "model_best.npz"):
        assert (workplace / "a" / name).read_bytes() == (workplace / "b" / name).read_bytes()

    for written in ("config.yaml", "summary.json"):
        config = yaml.safe_load((workplace / "a" / written).read_text("utf-8"))
        assert config.get("config", config)["optimizer"]["lr"] == "auto"

    assert nnopt("lr-find", *overrides, "hydra.run.dir=c") == 0
    assert (workplace / "c" / "lr_find.csv").read_bytes() == curve
    assert json.loads((workplace / "c" / "lr_find.json").read_text())["suggestion"] == found


def test_auto_lr_is_found_for_each_point_of_a_sweep(
    nnopt: Run, capsys: Captured, workplace: Path
) -> None:
    overrides = ("optimizer=sgd,adam", "optimizer.lr=auto,0.01", "hydra.sweep.dir=s")
    assert nnopt("run", "-m", *SMALL, *overrides) == 0
    rows = rows_of(workplace / "s" / "results.csv")
    assert [row["optimizer.lr"] for row in rows] == ["auto", "0.01", "auto", "0.01"]
    found = [row["suggested_lr"] for row in rows]
    assert found[1] == found[3] == ""
    assert float(found[0]) > 2 * float(found[2])  # SGD's rate is larger than Adam's
    assert capsys.readouterr().out.count("optimizer.lr = ") == 2
    for row, rate in zip(rows, found, strict=True):
        folder = workplace / "s" / row["id"]
        assert rows_of(folder / "metrics.csv")[-1]["lr"] == (rate or "0.01")
        assert (folder / "lr_find.csv").exists() is bool(rate)


def test_auto_lr_without_suggestion_trains_nothing(
    nnopt: Run, capsys: Captured, workplace: Path
) -> None:
    """In the range test, zero weights stay zero, and the last biases cannot reduce the loss."""
    overrides = ("initializer=zeros", "optimizer.lr=auto", "hydra.run.dir=a", "plots=true")
    assert nnopt("run", *SMALL, *overrides) == 5
    captured = capsys.readouterr()
    assert "epoch" not in captured.out
    assert captured.err.count("nnopt: error: ") == 1
    assert "optimizer.lr = 'auto' found no learning rate: the loss " in captured.err
    assert "choose another initializer, such as initializer=he, or set a number" in captured.err
    summary = summary_of(workplace / "a")
    assert (summary["status"], summary["suggested_lr"]) == ("failed", None)
    assert captured.err.endswith(f"nnopt: error: {summary['error']}\n")
    files = {path.name for path in (workplace / "a").rglob("*")}
    assert files == {
        *("config.yaml", "lock", "lr_find.csv", "plots", "lr_find.png", "run.log", "summary.json")
    }


def suggestion_of(
    rate: float, advice: str | None = None, proposed: str | None = None
) -> Callable[..., LrSuggestion]:
    curve = LrCurve(np.array([rate, 10 * rate]), np.ones(2), np.ones(2), diverged=False)
    return lambda *_: LrSuggestion(curve, rate, 1, advice, proposed)


def test_auto_lr_suggestion_that_violates_rule_is_refused(
    nnopt: Run, capsys: Captured, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnopt.recipe.auto_lr.suggest_learning_rate", suggestion_of(0.5))
    overrides = (*SMALL, "optimizer.lr=auto", "regularizer.weight_decay=2", "hydra.run.dir=a")
    assert nnopt("run", *overrides) == 2
    assert (
        "optimizer.lr = 'auto' found 0.5: optimizer.lr = 0.5 times regularizer.weight_decay = 2.0 "
        "must be below 1"
    ) in capsys.readouterr().err
    assert not (workplace / "a" / "metrics.csv").exists()


def test_auto_lr_advice_is_printed(
    nnopt: Run, capsys: Captured, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = suggestion_of(0.03, "try lr_find.x=1", "lr_find.x=1")
    monkeypatch.setattr("nnopt.recipe.auto_lr.suggest_learning_rate", found)
    overrides = (*SMALL, "plots=true", "optimizer.lr=auto", "hydra.run.dir=a")
    assert nnopt("run", *overrides) == 0
    assert "note: try lr_find.x=1 with nnopt lr-find\n" in capsys.readouterr().out
    assert {"lr_find.png", "curves.png"} <= {x.name for x in (workplace / "a" / "plots").iterdir()}
    assert "lr_find.x=1" in (workplace / "a" / "run.log").read_text("utf-8")


@pytest.mark.parametrize(
    ("advice", "proposed", "message"),
    [
        ("the loss rose; try lr_find.x=1", "lr_find.x=1", "try lr_find.x=1 with nnopt lr-find, or"),
        ("look at lr_find.csv", None, "found no learning rate: look at lr_find.csv, or set"),
        ("try it lower", "min_lr=1", "try it lower with nnopt lr-find, or set a number"),
    ],
)
def test_auto_lr_refers_to_lr_find_only_if_the_advice_proposes_another_range(
    nnopt: Run,
    capsys: Captured,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    advice: str,
    proposed: str | None,
    message: str,
) -> None:
    curve = LrCurve(np.array([0.1, 1.0]), np.ones(2), np.ones(2), diverged=False)
    found = LrSuggestion(curve, None, None, advice, proposed)
    monkeypatch.setattr("nnopt.recipe.auto_lr.suggest_learning_rate", lambda *_: found)
    assert nnopt("run", *SMALL, "optimizer.lr=auto", "hydra.run.dir=a") == 5
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["describe", "gradcheck"])
def test_auto_lr_is_accepted_by_commands_without_training(
    nnopt: Run, capsys: Captured, verb: str
) -> None:
    outputs = []
    for rate in ("auto", "0.1"):
        assert nnopt(verb, *SMALL, f"optimizer.lr={rate}") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_auto_lr_is_accepted_by_lr_find(nnopt: Run, capsys: Captured, workplace: Path) -> None:
    assert nnopt("lr-find", *SMALL, "optimizer.lr=auto", "optimizer=sgd") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("continue with: nnopt run")
    assert "auto" not in last


def test_learning_rate_auto_before_search_raises_an_error(
    make_config: Callable[..., Config],
) -> None:
    assert learning_rate(make_config(**{"optimizer.lr": 0.5})) == 0.5
    with pytest.raises(ValueError, match=r"optimizer\.lr = 'auto'"):
        learning_rate(make_config(**{"optimizer.lr": "auto"}))
