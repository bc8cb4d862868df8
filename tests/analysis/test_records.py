"""The JSON document of a comparison: its keys, types and values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnopt.analysis.comparison import Comparison, compare_runs, sort_rows
from nnopt.analysis.records import document, records
from nnopt.analysis.settings import Condition
from nnopt.io.atomic_files import json_text
from nnopt.results.collect import Run, Value

TARGET = {"target.metric": "validation_accuracy", "target.value": 0.9}


def run(
    seed: int, status: str = "done", metrics: dict[str, float] | None = None, **keys: Value
) -> Run:
    settings = {"dataset": "spiral", **TARGET, **{k.replace("__", "."): x for k, x in keys.items()}}
    folder = Path(f"{seed}")
    return Run(folder, seed, status, None, settings, metrics or {}, frozenset(), 0)


@pytest.fixture
def comparison() -> Comparison:
    """Return a comparison of three settings, with a failed run and with unreached targets."""
    values = {0.1: [0.1 + 0.2, 0.5, 0.6], 1: [0.4, 0.7, 0.6], None: [0.5, 0.5, 0.5]}
    runs = [
        run(seed, metrics={"test_loss": x, **({"steps_to_target": 5} if seed else {})}, lr=lr)
        for lr, losses in values.items()
        for seed, x in enumerate(losses)
    ]
    runs += [run(3, "failed", lr=1), run(0, metrics={"test_loss": 0.3}, layers=(8, "relu"))]
    runs += [run(0, metrics={"test_loss": 0.4}, layers=(16,))]
    baseline = [Condition("lr", "=", ("0.1",))]
    return compare_runs(runs, ["test_loss", "steps_to_target"], baseline, {"test_loss": 0.05})


def read_back(comparison: Comparison, *pivoted: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not part of JSON")

    pair = (pivoted[0], pivoted[1]) if pivoted else None
    return json.loads(json_text(document(comparison, pair)), parse_constant=refuse)


def test_document_has_the_documented_keys(comparison: Comparison) -> None:
    found = read_back(comparison)
    assert list(found) == [
        *("metrics", "estimates", "confidence", "significance", "baseline", "margins", "tests"),
        *("settings", "notes"),
    ]
    assert found["metrics"] == ["test_loss", "steps_to_target"]
    assert found["estimates"] == {"test_loss": "mean", "steps_to_target": "median"}
    assert found["baseline"] == ["lr=0.1"]
    assert found["margins"] == {"test_loss": 0.05}
    assert found["tests"] == comparison.tests > 0
    for setting in found["settings"]:
        assert list(setting) == ["keys", "is_baseline", "runs", "left_out", "results"]
        assert list(setting["keys"]) == list(comparison.keys)
        assert list(setting["results"]["test_loss"]) == [
            *("n", "mean", "std", "low", "high", "best", "pairs", "difference", "difference_low"),
            *("difference_high", "p", "p_holm", "margin", "p_equivalence", "p_equivalence_holm"),
            *("decided", "seeds_to_decide", "verdict", "values"),
        ]
        assert list(setting["results"]["steps_to_target"]) == [
            *("n", "reached", "median", "low", "high", "best", "budget", "earlier", "p", "p_holm"),
            *("verdict", "values"),
        ]


def test_document_has_values_in_full_precision_and_null_for_missing(
    comparison: Comparison,
) -> None:
    settings = read_back(comparison)["settings"]
    by_lr = {str(x["keys"]["lr"]): x for x in settings if x["keys"]["layers"] is None}
    base = by_lr["0.1"]
    assert base["is_baseline"]
    assert base["results"]["test_loss"]["values"] == {"0": 0.1 + 0.2, "1": 0.5, "2": 0.6}
    assert base["results"]["test_loss"]["p"] is None
    assert base["results"]["steps_to_target"]["values"] == {"0": None, "1": 5, "2": 5}
    assert base["results"]["steps_to_target"]["budget"] is None
    assert by_lr["1"]["left_out"] == {"failed": 1}
    assert by_lr["1"]["keys"]["lr"] == 1
    (other,) = [x for x in settings if x["keys"]["layers"] == [8, "relu"]]
    assert other["keys"] == {"lr": None, "layers": [8, "relu"]}
    result = other["results"]["test_loss"]
    assert (result["n"], result["std"], result["low"]) == (1, None, None)
    assert result["verdict"] == "one common seed"


def test_document_agrees_with_the_records_of_csv(comparison: Comparison) -> None:
    for record, setting in zip(records(comparison), read_back(comparison)["settings"], strict=True):
        for metric, result in setting["results"].items():
            values = {f"{metric}_{name}": x for name, x in result.items() if name != "values"}
            assert values.items() <= record.items()


def test_document_of_pivot_table_has_a_cell_for_each_setting() -> None:
    values = [(1, 1, 0.1), (1, 2, 0.2), (2, 1, 0.4)]
    runs = [run(0, metrics={"x": x}, a=a, b=b) for a, b, x in values]
    comparison = compare_runs(runs, ["x"])
    comparison = Comparison(
        **{**vars(comparison), "rows": sort_rows(comparison, "a", reverse=True)}
    )
    found = read_back(comparison, "a", "b")
    assert (found["row"], found["column"]) == ("a", "b")
    assert [row["keys"] for row in found["rows"]] == [{"a": 2}, {"a": 1}]
    cells = [[(x["column"], x["mean"], x["n"]) for x in row["cells"]] for row in found["rows"]]
    assert cells == [[(1, 0.4, 1)], [(1, 0.1, 1), (2, 0.2, 1)]]
    assert "settings" not in found
