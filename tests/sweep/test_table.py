"""results.csv: a row for every point, whatever state it is in."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from nnopt.compose import Plan, make_plan
from nnopt.sweep.table import METRICS, write_table


@pytest.fixture
def plan(workplace: Path) -> Plan:
    words = ["optimizer=sgd,adam", "+regularizer.l2=0,1e-4", "architecture.hidden=[8,4]"]
    return make_plan([*words, "seed=3"], multirun=True)


def write(folder: Path, **values: Any) -> None:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(values))


def rows(folder: Path) -> list[list[str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_columns_are_fixed_and_every_point_has_a_row(plan: Plan, workplace: Path) -> None:
    write_table(plan, workplace)
    header, *found = rows(workplace)
    assert header == [
        "number",
        "id",
        "status",
        "error",
        "optimizer",
        "regularizer.l2",
        "seed",
        *METRICS,
    ]
    assert [row[0] for row in found] == ["1", "2", "3", "4"]
    assert [row[1] for row in found] == [point.id for point in plan.points]
    assert all(row[2] == "pending" and set(row[7:]) == {""} for row in found)
    assert [row[4] for row in found] == ["sgd", "sgd", "adam", "adam"]
    assert [float(row[5]) for row in found] == [0, 1e-4, 0, 1e-4]
    assert {row[6] for row in found} == {"3"}


def test_rows_follow_the_folders_as_they_stand(plan: Plan, workplace: Path) -> None:
    done, failed, running, _ = (workplace / point.id for point in plan.points)
    accuracy = 0.1 + 0.2  # 0.30000000000000004: in full precision
    write(done, status="done", error=None, test_accuracy=accuracy, epochs=5, stopped_early=False)
    write(failed, status="diverged", error='a "quoted", long\nmessage', epochs=0)
    running.mkdir()
    (running / "run.log").write_text("")
    write_table(plan, workplace)
    header, *found = rows(workplace)
    table = [dict(zip(header, row, strict=True)) for row in found]
    assert [row["status"] for row in table] == ["done", "diverged", "running", "pending"]
    assert table[0]["test_accuracy"] == "0.30000000000000004"
    assert table[0]["stopped_early"] == "False"
    assert table[0]["test_loss"] == ""
    assert (table[1]["error"], table[1]["epochs"]) == ('a "quoted", long\nmessage', "0")


def test_a_broken_summary_is_no_reason_to_fail(plan: Plan, workplace: Path) -> None:
    folder = workplace / plan.points[0].id
    folder.mkdir()
    (folder / "summary.json").write_text('{"status": "do')
    write_table(plan, workplace)
    assert rows(workplace)[1][2] == "pending"


def test_seed_alone_is_one_column(workplace: Path) -> None:
    write_table(make_plan(["seed=0,1"], multirun=True), workplace)
    header, *found = rows(workplace)
    assert header.count("seed") == 1
    assert [row[4] for row in found] == ["0", "1"]


def test_deletions_do_not_confuse_the_columns(workplace: Path) -> None:
    write_table(make_plan(["~experiment", "seed=0,1"], multirun=True), workplace)
    assert len(rows(workplace)) == 3


def test_a_swept_key_and_the_metric_of_its_name_have_a_column_each(workplace: Path) -> None:
    plan = make_plan(["epochs=5,6"], multirun=True)
    write(workplace / plan.points[0].id, status="done", epochs=2)
    write_table(plan, workplace)
    header, first, _ = rows(workplace)
    assert len(set(header)) == len(header)
    assert (first[header.index("epochs")], first[header.index("epochs_done")]) == ("5", "2")
