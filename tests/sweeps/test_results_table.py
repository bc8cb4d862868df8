"""A point of any status has one row in results.csv."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from data_files import summary_values

from nnopt.config.compose import Plan, make_plan
from nnopt.io.locks import hold
from nnopt.results.metrics import METRICS
from nnopt.sweeps import results_table as table_file
from nnopt.sweeps.manifest import create_sweep, extend_sweep
from nnopt.sweeps.point_folder import read_state
from nnopt.sweeps.results_table import ResultsTable


@pytest.fixture
def plan(workplace: Path) -> Plan:
    overrides = ["optimizer=sgd,adam", "+regularizer.l2=0,1e-4", "architecture.hidden=[8,4]"]
    return make_plan([*overrides, "seed=3"], multirun=True)


def write_table(plan: Plan, folder: Path) -> ResultsTable:
    table = ResultsTable(create_sweep(plan, folder))
    table.write()
    return table


def write(folder: Path, **values: Any) -> None:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary_values(**values)))


def rows(folder: Path) -> list[list[str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_table_has_fixed_columns_and_a_row_per_point(plan: Plan, workplace: Path) -> None:
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


def test_table_rows_have_state_and_metrics_of_folders(plan: Plan, workplace: Path) -> None:
    done, failed, running, _ = (workplace / point.id for point in plan.points)
    accuracy = 0.1 + 0.2  # 0.30000000000000004 in full precision
    write(done, status="done", error=None, test_accuracy=accuracy, epochs=5, stopped_early=False)
    write(failed, status="diverged", error='a "quoted", long\nmessage', epochs=0)
    running.mkdir()
    (running / "run.log").write_text("")
    written = write_table(plan, workplace)
    header, *found = rows(workplace)
    table = [dict(zip(header, row, strict=True)) for row in found]
    assert [row["status"] for row in table] == ["done", "diverged", "interrupted", "pending"]
    with hold(running):
        written.write()
        assert rows(workplace)[3][2] == "running"
    assert table[0]["test_accuracy"] == "0.30000000000000004"
    assert table[0]["stopped_early"] == "False"
    assert table[0]["test_loss"] == ""
    assert (table[1]["error"], table[1]["epochs"]) == ('a "quoted", long\nmessage', "0")


def test_table_shows_point_with_damaged_summary_as_interrupted(plan: Plan, workplace: Path) -> None:
    folder = workplace / plan.points[0].id
    folder.mkdir()
    (folder / "summary.json").write_text('{"status": "do')
    write_table(plan, workplace)
    assert rows(workplace)[1][2] == "interrupted"


def test_table_with_varied_seed_has_one_seed_column(workplace: Path) -> None:
    write_table(make_plan(["seed=0,1"], multirun=True), workplace)
    header, *found = rows(workplace)
    assert header.count("seed") == 1
    assert [row[4] for row in found] == ["0", "1"]


def test_table_of_sweep_with_deletion_override_has_no_added_column(workplace: Path) -> None:
    write_table(make_plan(["~experiment", "seed=0,1"], multirun=True), workplace)
    header, *found = rows(workplace)
    assert header == ["number", "id", "status", "error", "seed", *METRICS]
    assert [(row[0], row[4]) for row in found] == [("1", "0"), ("2", "1")]


def test_table_has_own_column_for_varied_key_named_like_metric(workplace: Path) -> None:
    plan = make_plan(["epochs=5,6"], multirun=True)
    write(workplace / plan.points[0].id, status="done", epochs=2)
    write_table(plan, workplace)
    header, first, _ = rows(workplace)
    assert len(set(header)) == len(header)
    assert (first[header.index("epochs")], first[header.index("epochs_done")]) == ("5", "2")


def test_table_reads_only_changed_summaries(
    plan: Plan, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = (workplace / point.id for point in plan.points)
    write(first, status="done", error=None)
    table = ResultsTable(create_sweep(plan, workplace))
    table.write()
    read: list[Path] = []
    real = read_state
    monkeypatch.setattr(
        table_file, "read_state", lambda folder: (read.append(folder), real(folder))[1]
    )
    write(second, status="failed", error="why")
    assert [entry.status for entry in table.write()] == ["done", "failed", "pending", "pending"]
    assert read == [second]
    (first / "summary.json").write_text(
        json.dumps(summary_values(status="diverged", error="again"))
    )
    assert [entry.status for entry in table.write()][:2] == ["diverged", "failed"]
    assert read == [second, first]


def test_table_keeps_rows_of_another_process(workplace: Path) -> None:
    sweep = create_sweep(make_plan(["seed=0,1"], multirun=True), workplace)
    mine = ResultsTable(sweep)
    mine.write()
    more = make_plan(["seed=0,1,2", "optimizer=sgd,adam"], multirun=True)
    extend_sweep(sweep, more.points, more.varied)
    mine.write()
    header, *found = rows(workplace)
    assert header[4:6] == ["optimizer", "seed"]
    assert [(row[0], row[4], row[5]) for row in found[:3]] == [
        ("1", "momentum", "0"),
        ("2", "momentum", "1"),
        ("3", "sgd", "0"),
    ]
    assert len(found) == 8


def test_concurrent_writers_of_table_lose_no_row(workplace: Path) -> None:
    sweep = create_sweep(make_plan(["seed=0"], multirun=True), workplace)
    points = make_plan(["seed=range(1,41)"], multirun=True).points

    def add(start: int) -> None:
        table = ResultsTable(sweep)
        for point in points[start::8]:
            extend_sweep(sweep, [point])  # opens and locks the lock file, as table.write does
            table.write()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert sorted(int(row[4]) for row in rows(workplace)[1:]) == list(range(41))
    assert [row[0] for row in rows(workplace)[1:]] == [str(number) for number in range(1, 42)]
