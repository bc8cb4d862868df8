"""The command ``nnopt report``: files, messages and refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., int]
LeaveRun = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


class Page(HTMLParser):
    """The elements and the JSON data of a page, as a browser reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(path.read_text("utf-8"))
        self.close()
        self.records: dict[str, Any] = json.loads(self.texts["script"][0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "title", "style"):
            self.texts.setdefault(self.tags[-1][0], []).append(text)


def points_of(page: Page) -> dict[str, dict[str, Any]]:
    return {point["name"]: point for point in page.records["points"]}


def test_page_of_a_sweep_is_complete(nnopt: Run, sweep: Path, capsys: Captured) -> None:
    assert nnopt("report", str(sweep)) == 3
    captured = capsys.readouterr()
    assert "adam-4/summary.json is damaged" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out.startswith("wrote ")

    page = Page(sweep / "report.html")
    points = points_of(page)
    assert {name: point["status"] for name, point in points.items()} == {
        **{f"{name}-{seed}": "done" for name in ("sgd", "adam") for seed in range(3)},
        "sgd-3": "failed",
        "adam-3": "running",
        "adam-4": "damaged",
        "lion-0": "pending",
        "lion-1": "timeout",
    }
    assert [point["number"] for point in page.records["points"]] == list(range(1, 12))
    assert "is damaged" in points["adam-4"]["error"]
    assert points["lion-1"]["error"] == "took longer than 60 s"
    (scope,) = page.records["scopes"]
    assert scope["keys"] == ["optimizer"]
    assert [points[name]["keys"] for name in ("adam-3", "adam-4", "lion-0")] == [
        ["adam"],
        ["adam"],
        ["lion"],
    ]
    assert points["sgd-1"]["metrics"]["test_accuracy"] == 0.82
    about = dict(map(tuple, scope["about"]))
    assert about["Overrides"] == ["epochs=30"]
    assert about["Varied"] == ["optimizer: sgd, adam, lion", "seed: 0, 1, 2, 3, 4"]
    assert about["Time"][0].startswith("2026-01-02 03:00 to ")
    assert about["Time"][1] == "6 min 00 s in all, 60 s on average"


def test_table_of_page_equals_output_of_compare_command(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    assert nnopt("compare", str(sweep)) == 3
    lines = capsys.readouterr().out.splitlines()
    assert nnopt("report", str(sweep), "--out", "page.html") == 3
    (scope,) = Page(Path("page.html")).records["scopes"]
    table = scope["comparison"]
    shown = [" ".join(row).strip() for row in [table["header"], *table["rows"]]]
    printed = [" ".join(line.replace("*", " ").split()) for line in lines]
    assert shown == printed[1:4]
    assert table["title"] == printed[0]
    assert table["best"] == [[2], []]
    assert table["values"][0][:3] == ["adam", 3, 0.94]
    assert table["seeds"][1][0]["values"] == [[0, 0.8], [1, 0.82], [2, 0.84]]
    assert table["notes"][-1] == "not in the table: 1 running, 1 damaged, 1 pending, 1 timeout"


def test_page_of_times_to_target_has_no_infinite_number(
    nnopt: Run, workplace: Path, leave_run: LeaveRun
) -> None:
    """The median and an end of its interval are infinite if too few runs reached the target."""
    for seed, steps in enumerate([30, 40, None, None, None, 35, None]):
        summary = leave_run(Path(f"runs/{seed}"), seed) / "summary.json"
        values = json.loads(summary.read_text())
        values["config"]["target"] = {"metric": "validation_accuracy", "value": 0.9}
        summary.write_text(json.dumps(values | {"steps_to_target": steps}))
    arguments = ["--metric", "steps_to_target", "--out", "page.html"]
    assert nnopt("report", "runs", *arguments) == 0
    (scope,) = Page(Path("page.html")).records["scopes"]
    assert scope["comparison"]["rows"] == [["3 of 7", "not reached", "[30, not reached]"]]
    assert scope["comparison"]["values"] == [[7, None, 30]]
    ((found,),) = scope["comparison"]["seeds"]
    assert (found["mean"], found["interval"]) == (None, None)
    assert found["values"] == [[0, 30], [1, 40], [5, 35]]


def test_user_text_in_page_is_not_markup(nnopt: Run, sweep: Path, capsys: Captured) -> None:
    nnopt("report", str(sweep), "--out", "page.html")
    page = Page(Path("page.html"))
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 2
    assert page.texts["title"][0] == "a <b> & sweep – nnopt report"
    text = Path("page.html").read_text("utf-8")
    data = text[text.index('id="data">') :].partition("</script>")[0]
    assert "taken" in data
    assert not re.search(r'[<&\u2028]|[^"]>', data)
    assert points_of(page)["sgd-3"]["error"].startswith("ValueError: </script><script>")


def test_page_makes_no_requests(nnopt: Run, sweep: Path) -> None:
    nnopt("report", str(sweep), "--out", "page.html")
    page = Page(Path("page.html"))
    asked = [a for _, attributes in page.tags for a in attributes if a in ("src", "href", "action")]
    assert asked == []
    assert not re.search(
        r"@import|url\((?!#)|https?://(?!www\.w3\.org)", "".join(page.texts["style"])
    )
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data: 'self' file:; style-src 'sha256-")


def test_page_of_a_sweep_shows_command_and_pending_points(
    nnopt: Run, sweep: Path, workplace: Path
) -> None:
    """The page shows a key that differs only in a pending point, and is not in the command."""
    folder = shutil.copytree(sweep, workplace / "planned")
    config = json.loads((folder / "adam-0" / "summary.json").read_text())["config"]
    config["optimizer"]["name"], config["epochs"] = "lion", 99
    point = {"number": 10, "id": "lion-0", "overrides": ["optimizer=lion"], "config": config}
    record = {"words": ["optimizer=sgd,adam,lion", "seed=range(5)"], "points": [point]}
    (folder / "sweep.json").write_text(json.dumps(record))
    assert nnopt("report", "planned") == 3
    page = folder / "report.html"
    records = Page(page).records
    (scope,) = records["scopes"]
    command = "nnopt run -m optimizer=sgd,adam,lion 'seed=range(5)'"
    assert dict(map(tuple, scope["about"]))["Command"] == [command]
    keys = dict(zip(scope["keys"], points_of(Page(page))["lion-0"]["keys"], strict=True))
    assert keys == {"optimizer": "lion", "epochs": "99"}
    (folder / "sweep.json").write_text('{"words')
    assert nnopt("report", "planned") == 3


def test_page_tells_which_runs_have_damaged_curves(
    nnopt: Run, sweep: Path, workplace: Path
) -> None:
    folder = shutil.copytree(sweep / "sgd-0", workplace / "run")
    (folder / "metrics.csv").write_text("epoch,loss\n1,2\n")
    assert nnopt("report", "run") == 0
    (point,) = Page(folder / "report.html").records["points"]
    assert "is no metrics file of nnopt" in point["unread"]
    assert "grid" not in point


def test_page_of_a_single_run_is_complete(nnopt: Run, sweep: Path) -> None:
    assert nnopt("report", str(sweep / "sgd-0")) == 0
    page = Page(sweep / "sgd-0" / "report.html")
    (sweep / "sgd-0" / "report.html").unlink()
    (point,) = page.records["points"]
    (scope,) = page.records["scopes"]
    assert dict(map(tuple, scope["about"]))["Command"] == [
        "nnopt run optimizer=sgd seed=0 epochs=30"
    ]
    assert scope["keys"] == []
    assert point["folder"] == "sgd-0"
    (plot,) = point["plots"]
    assert plot["name"] == "confusion"
    assert plot["src"].startswith("data:image/webp;base64,")
    lines = [page.records["lines"][place] for place in point["config"]]
    config = json.loads((sweep / "sgd-0" / "summary.json").read_bytes())["config"]
    assert yaml.safe_load("\n".join(lines)) == config
    assert point["log"].endswith("last line\n")


def test_page_shows_configuration_from_summary_instead_of_edited_config_file(
    nnopt: Run, sweep: Path, workplace: Path
) -> None:
    folder = shutil.copytree(sweep / "sgd-0", workplace / "run")
    before = "  name: sgd\n"
    (folder / "config.yaml").write_text(f"optimizer:\n{before.replace('sgd', 'adam')}")
    assert nnopt("report", "run") == 0
    page = Page(folder / "report.html")
    (point,) = page.records["points"]
    lines = [page.records["lines"][place] for place in point["config"]]
    assert before.rstrip() in lines
    assert "  name: adam" not in lines


def test_page_of_unfinished_run_shows_config_file(nnopt: Run, sweep: Path, workplace: Path) -> None:
    folder = shutil.copytree(sweep / "sgd-0", workplace / "run")
    (folder / "summary.json").unlink()
    (folder / "config.yaml").write_text("seed: 7\n")
    assert nnopt("report", "run") == 0
    page = Page(folder / "report.html")
    (point,) = page.records["points"]
    assert [page.records["lines"][place] for place in point["config"]] == ["seed: 7"]


def test_page_of_many_sweeps_has_a_scope_for_each_sweep(
    nnopt: Run, sweep: Path, leave_run: LeaveRun, workplace: Path
) -> None:
    for name in ("one", "two"):
        shutil.copytree(sweep, workplace / "all" / name)
    leave_run(workplace / "all" / "alone", 0, {"epochs": 7})
    assert nnopt("report", "all", "--metric", "test_accuracy,best_epoch") == 3
    records = Page(workplace / "all" / "report.html").records
    scopes = {scope["name"]: scope for scope in records["scopes"]}
    assert {name: len(scope["points"]) for name, scope in scopes.items()} == {
        "everything": 23,
        "single runs": 1,
        "one": 11,
        "two": 11,
    }
    assert scopes["everything"]["keys"] == ["epochs", "optimizer"]
    assert scopes["one"]["keys"] == ["optimizer"]
    assert "best_epoch" in scopes["two"]["comparison"]["header"]
    sweeps = {records["points"][place]["sweep"] for place in scopes["two"]["points"]}
    assert sweeps == {"two"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["empty"], "no run in or below empty"),
        (["runs", "--metric", "test_acc"], "unknown metric 'test_acc'; did you mean 'test_accura"),
        (["runs", "--out", "none/page.html"], "its folder does not exist"),
    ],
)
def test_wrong_arguments_of_report_command_are_refused(
    nnopt: Run, leave_run: LeaveRun, capsys: Captured, arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    leave_run(Path("runs"))
    assert nnopt("report", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().rglob("*.html"))


def test_page_without_finished_runs_is_written(nnopt: Run, leave_run: LeaveRun) -> None:
    leave_run(Path("runs/failed"), status="failed", error="x", test_accuracy=None)
    leave_run(Path("runs/running"), 1)
    Path("runs/running/summary.json").unlink()
    assert nnopt("report", "runs") == 0
    (scope,) = Page(Path("runs/report.html")).records["scopes"]
    assert scope["comparison"] is None
    assert scope["why"].startswith("No run has finished")
