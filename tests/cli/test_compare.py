"""``nnopt compare``: tables of finished runs, filters, output formats and refused arguments."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nnopt.config.compose import make_plan

LeaveRun = Callable[..., Path]
Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def sweep(workplace: Path, leave_run: LeaveRun) -> Path:
    """Return the folder of a sweep: SGD with two learning rates, and Adam; three seeds each."""
    folder = workplace / "sweep"
    accuracies = {
        ("sgd", 0.1): (0.80, 0.81, 0.85),
        ("sgd", 0.5): (0.81, 0.80, 0.86),
        ("adam", 0.001): (0.90, 0.92, 0.94),
    }
    for (optimizer, lr), values in accuracies.items():
        for seed, accuracy in enumerate(values):
            changes = {"optimizer": optimizer, "optimizer.lr": lr, "epochs": 2}
            name = f"{optimizer}-{lr}-{seed}"
            summary = {"test_accuracy": accuracy, "test_loss": 1 - accuracy, "epochs": 2}
            leave_run(folder / name, seed, changes, **summary)
    return folder


def lines_of(captured: Captured) -> list[str]:
    return [" ".join(line.split()) for line in captured.readouterr().out.splitlines()]


def test_compare_command_on_sweep_prints_table(nnopt: Run, sweep: Path, capsys: Captured) -> None:
    arguments = ["--baseline", "optimizer=sgd", "--baseline", "optimizer.lr=0.1"]
    assert nnopt("compare", str(sweep), *arguments) == 0
    title, header, *rows = lines_of(capsys)
    assert title == "test_accuracy, mean ± standard deviation over seeds: 9 runs, 3 settings"
    assert header == (
        "optimizer optimizer.lr n test_accuracy 95 % interval difference p (Holm) verdict"
    )
    # p from scipy.stats.ttest_rel: 0.6667 for lr=0.5; 0.00332 for adam, doubled by Holm's method
    assert rows[:3] == [
        "adam 0.001 3 0.920 ± 0.020 * [0.870, 0.970] +0.100 [0.075, 0.125] 0.007 better",
        "sgd 0.1 3 0.820 ± 0.026 [0.754, 0.886] – – baseline",
        "sgd 0.5 3 0.823 ± 0.032 [0.743, 0.903] +0.003 [-0.025, 0.032] 0.667 not distinguishable",
    ]
    assert rows[3] == "* the best mean"
    assert "paired t test, corrected for 2 comparisons by Holm's method" in rows[4]


def test_csv_output_of_compare_command_has_full_precision(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    assert nnopt("compare", "sweep", "--format", "csv", "--metric", "test_loss,epochs") == 0
    first, *_ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert first["optimizer"] == "adam"
    assert float(first["test_loss_mean"]) == pytest.approx(0.08, rel=1e-14)
    assert float(first["test_loss_std"]) == pytest.approx(0.02, rel=1e-12)
    # Student's t with two degrees of freedom has the 97.5 % quantile 4.302653.
    assert float(first["test_loss_high"]) == pytest.approx(0.08 + 4.302653 * 0.02 / 3**0.5)
    assert first["epochs_n"] == "3"
    assert first["test_loss_best"] == "True"
    assert "test_loss_p" not in first


def test_json_output_of_compare_command_is_the_only_output(
    nnopt: Run, sweep: Path, capsys: Captured, leave_run: LeaveRun
) -> None:
    leave_run(sweep / "late", 3, {"optimizer": "sgd", "epochs": 2}, status="failed", error="x")
    arguments = ["--baseline", "optimizer=adam", "--margin", "0.01", "--format", "json"]
    assert nnopt("compare", "sweep", *arguments) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert found["notes"] == ["left out: 1 failed"]
    adam = found["settings"][0]
    assert adam["keys"] == {"optimizer": "adam", "optimizer.lr": 0.001}
    assert adam["results"]["test_accuracy"]["mean"] == pytest.approx(0.92, rel=1e-15)
    pivot = ["--pivot", "optimizer.lr", "optimizer", "--format", "json"]
    assert nnopt("compare", "sweep", *pivot) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["keys"]["optimizer.lr"] for row in rows] == [0.001, 0.1, 0.5]


def test_margin_option_of_compare_command_adds_p_values_and_changes_verdicts(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    baseline = ["--baseline", "optimizer=sgd", "--baseline", "optimizer.lr=0.1"]
    assert nnopt("compare", "sweep", *baseline) == 0
    plain = lines_of(capsys)[2:5]
    assert nnopt("compare", "sweep", *baseline, "--margin", "0.05") == 0
    rows = lines_of(capsys)[2:5]
    verdicts = ["0.993 better", "baseline", "0.020 equivalent within 0.05"]
    before = [x.removesuffix(" not distinguishable").removesuffix(" better") for x in plain]
    after = [x.removesuffix(f" {verdict}") for x, verdict in zip(rows, verdicts, strict=True)]
    assert [before[0], before[2]] == [after[0], after[2]]
    assert rows[1] == plain[1].replace("baseline", "– baseline")
    # scipy.stats.ttest_1samp for lr=0.5: the larger one-sided p is 0.0099; Holm doubles it
    assert rows[0].endswith("+0.100 [0.075, 0.125] 0.007 0.993 better")
    assert rows[2].endswith("+0.003 [-0.025, 0.032] 0.667 0.020 equivalent within 0.05")
    assert nnopt("compare", "sweep", *baseline, "--margin", "test_accuracy=0.02") == 0
    (verdict,) = re.findall(
        r"undecided \(about (\d+) seeds would decide\)", capsys.readouterr().out
    )
    assert int(verdict) > 3


def test_compare_command_shows_interquartile_means(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    arguments = ["--estimate", "iqm", "--metric", "test_accuracy,epochs"]
    assert nnopt("compare", "sweep", *arguments) == 0
    lines = lines_of(capsys)
    assert lines[0].startswith("test_accuracy, epochs, interquartile mean over seeds: 9 runs")
    assert lines[2].startswith("adam 0.001 3 0.92 * – 3 2 –")


def test_compare_command_compares_times_to_target(
    nnopt: Run, workplace: Path, capsys: Captured, leave_run: LeaveRun
) -> None:
    target = {"metric": "validation_accuracy", "value": 0.9}
    for optimizer, steps in {"adam": [30, 40, 35, 50], "sgd": [90, None, None, 80]}.items():
        for seed, value in enumerate(steps):
            folder = leave_run(Path(f"runs/{optimizer}{seed}"), seed, {"optimizer": optimizer})
            path = folder / "summary.json"
            summary = json.loads(path.read_text())
            summary["config"]["target"] = target
            path.write_text(json.dumps(summary | {"steps_to_target": value}))
    arguments = ["--metric", "steps_to_target", "--baseline", "optimizer=sgd"]
    assert nnopt("compare", "runs", *arguments) == 0
    lines = lines_of(capsys)
    assert lines[2] == "adam 4 of 4 37.5 * – 1.00 0.029 better"  # p: 2 / C(8, 4)
    assert lines[3] == "sgd 2 of 4 not reached – – – baseline"


def test_compare_command_filters_sorts_and_pivots(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    assert nnopt("compare", "sweep", "--where", "optimizer.lr<0.2", "--where", "seed!=2") == 0
    rows = lines_of(capsys)
    assert rows[1].startswith("optimizer n ")
    assert rows[0].endswith("4 runs, 2 settings")
    assert nnopt("compare", "sweep", "--sort", "test_accuracy", "--reverse") == 0
    assert [row.split()[1] for row in lines_of(capsys)[2:5]] == ["0.1", "0.5", "0.001"]
    assert nnopt("compare", "sweep") == 0
    plain = lines_of(capsys)
    assert nnopt("compare", "sweep", "--reverse") == 0
    assert lines_of(capsys)[2:5] == plain[2:5][::-1]
    assert nnopt("compare", "sweep", "--pivot", "optimizer.lr", "optimizer") == 0
    header, *rows = lines_of(capsys)[1:5]
    assert header == "optimizer.lr optimizer=adam optimizer=sgd"
    assert rows[0] == "0.001 0.920 ± 0.020 * –"
    assert rows[1] == "0.1 – 0.820 ± 0.026"
    pivot = ["--pivot", "optimizer.lr", "optimizer", "--format", "csv"]
    assert nnopt("compare", "sweep", *pivot) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(table[1]["optimizer=sgd"]) == pytest.approx(0.82, rel=1e-15)
    assert table[1]["optimizer=adam"] == ""


@pytest.mark.parametrize(
    ("suffix", "start"),
    [
        (".txt", "test_acc"),
        (".csv", "optimizer,"),
        (".json", '{\n  "metrics"'),
        (".md", "test"),
        (".tex", "%"),
        (".html", "<!"),
    ],
)
def test_suffix_of_out_option_selects_format(
    nnopt: Run, sweep: Path, capsys: Captured, suffix: str, start: str
) -> None:
    assert nnopt("compare", "sweep", "--out", f"table{suffix}") == 0
    assert lines_of(capsys)[0] == f"wrote table{suffix}"
    assert Path(f"table{suffix}").read_text("utf-8").startswith(start)


def test_compare_command_reports_damaged_and_unfinished_runs(
    nnopt: Run, sweep: Path, capsys: Captured, leave_run: LeaveRun
) -> None:
    (sweep / "sgd-0.5-1" / "summary.json").write_text('{"status": "done", "se')
    (sweep / "sgd-0.5-2" / "summary.json").unlink()
    leave_run(sweep / "late", 3, {"optimizer": "sgd", "epochs": 2}, status="diverged", error="x")
    (sweep / "results.csv").write_text("status\npending\n")
    assert nnopt("compare", "sweep") == 3
    captured = capsys.readouterr()
    assert "sgd-0.5-1/summary.json is damaged" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "1 diverged" in captured.out
    assert "left out: 1 run interrupted" in captured.out
    assert "left out: 1 point not started" in captured.out
    assert "7 runs, 3 settings" in captured.out


@pytest.mark.parametrize("is_link", [False, True], ids=["removed", "link"])
def test_compare_command_reports_point_without_folder(
    nnopt: Run, sweep: Path, capsys: Captured, tmp_path: Path, is_link: bool
) -> None:
    shutil.move(sweep / "sgd-0.5-1", tmp_path / "elsewhere")
    if is_link:
        (sweep / "sgd-0.5-1").symlink_to(tmp_path / "elsewhere")
    rows = [f"sgd-0.5-{seed},done" for seed in (1, 2)]
    (sweep / "results.csv").write_text("\n".join(["id,status", *rows, "later,pending", ""]))
    assert nnopt("compare", "sweep") == 0
    out = capsys.readouterr().out
    assert "left out: 1 point without a folder" in out
    assert "left out: 1 point not started" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["sweep", "--metric", "test_acc"], "unknown metric 'test_acc'; did you mean 'test_accura"),
        (
            ["sweep", "--where", "optimizer=lion"],
            "no run has optimizer=lion; values of optim",
        ),
        (["sweep", "--where", "lr=1"], "did you mean 'optimizer.lr'"),
        (["sweep", "--baseline", "epochs=2"], "epochs is no column of this table"),
        (["sweep", "--sort", "optimiser"], "did you mean 'optimizer'"),
        (["sweep", "--pivot", "optimizer", "epochs"], "unknown key to pivot by 'epochs'"),
        (["sweep", "--pivot", "epochs", "optimizer"], "unknown key to pivot by 'epochs'"),
        (["sweep", "--pivot", "optimizer", "optimizer"], "needs two different keys"),
        (["sweep", "--out", "none/table.csv"], "its folder does not exist"),
        (["sweep", "--margin", "0.01"], "add --baseline KEY=VALUE"),
        (
            ["sweep", "--baseline", "optimizer=adam", "--margin", "0"],
            "--margin 0: the margin of test_accuracy must be a number above 0 and below 1",
        ),
        (["sweep", "--estimate", "median"], "invalid choice: 'median'"),
        (["sweep", "--estimate", "iqm", "--plots", "x"], "--plots draws means, not --estimate iqm"),
        (
            ["sweep", "--metric", "steps_to_target", "--plots", "x"],
            "--plots draws means, but steps_to_target has no mean",
        ),
        (
            ["sweep", "--metric", "steps_to_target", "--estimate", "iqm"],
            "--estimate iqm has no effect on steps_to_target",
        ),
        (["sweep", "--metric", "steps_to_target"], "no finished run has a steps_to_target"),
        (["sweep", "--out", "table.pdf"], "no format has the suffix '.pdf'"),
    ],
)
def test_wrong_usage_of_compare_command_is_refused(
    nnopt: Run, sweep: Path, capsys: Captured, arguments: list[str], message: str
) -> None:
    assert nnopt("compare", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_comparison_of_different_datasets_is_refused_by_default(
    nnopt: Run, sweep: Path, capsys: Captured, leave_run: LeaveRun
) -> None:
    leave_run(sweep / "other", 0, {"dataset.name": "moons"})
    assert nnopt("compare", "sweep") == 2
    assert "different datasets (moons, spiral)" in capsys.readouterr().err
    for arguments in (
        ["--allow-mixed-data"],
        ["--where", "dataset=moons,spiral"],
        ["--pivot", "dataset", "optimizer"],
    ):
        assert nnopt("compare", "sweep", *arguments) == 0
        assert "moons" in capsys.readouterr().out
    assert nnopt("compare", "sweep", "--where", "dataset=spiral") == 0
    assert lines_of(capsys)[1].startswith("optimizer ")


def test_condition_on_digest_of_files_selects_runs(
    nnopt: Run, sweep: Path, capsys: Captured, leave_run: LeaveRun
) -> None:
    for seed, digest in ((0, "a"), (1, "a"), (0, "b")):
        data = {"name": "spiral", "sources": {"file": digest * 64}}
        leave_run(Path(f"csv/{digest}{seed}"), seed, data=data, test_accuracy=0.5)
    assert nnopt("compare", "csv") == 2
    stderr = capsys.readouterr().err
    found = re.search(r"--where (dataset\.files=[0-9a-f]{8}),", stderr)
    assert found
    assert nnopt("compare", "csv", "--where", found[1]) == 0
    assert "2 runs, 1 setting" in capsys.readouterr().out
    assert nnopt("compare", "csv", "--allow-mixed-data", "--baseline", found[1]) == 0
    assert "baseline" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["a.csv", "/data/a.csv"])
def test_condition_on_any_path_of_a_data_file_selects_all_runs_with_this_file(
    nnopt: Run, workplace: Path, capsys: Captured, leave_run: LeaveRun, path: str
) -> None:
    csv_file = (
        make_plan(["dataset=csv", "dataset.train=x"], multirun=False).points[0].config.dataset
    )
    for number, train in enumerate(["/data/a.csv", "a.csv", "/data/b.csv"]):
        name = Path(train).name
        data = {"name": "csv", "sources": {f"/data/{name}": name[0] * 64, "/data/t.csv": "f" * 64}}
        dataset = replace(csv_file, train=train, test="t.csv")
        for seed in (0, 1):
            seed += 2 * (train == "a.csv")
            leave_run(Path(f"csv/{number}-{seed}"), seed, {"dataset": dataset}, data=data)
    assert nnopt("compare", "csv", "--where", f"dataset.train={path}") == 0
    assert "4 runs, 1 setting" in capsys.readouterr().out
    assert nnopt("compare", "csv", "--where", f"dataset.train!={path}") == 0
    assert "2 runs, 1 setting" in capsys.readouterr().out
    assert nnopt("compare", "csv", "--baseline", f"dataset.train={path}") == 0
    rows = lines_of(capsys)
    assert rows[0].endswith("6 runs, 2 settings")
    assert [row.split()[-1] for row in rows if row.split()[0] == "a.csv"] == ["baseline"]


def test_comparison_without_finished_run_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured, leave_run: LeaveRun
) -> None:
    leave_run(workplace / "a", status="diverged", error="x")
    assert nnopt("compare", "a") == 2
    assert "no run has finished: 1 diverged" in capsys.readouterr().err


def test_compare_command_imports_neither_torch_nor_matplotlib(sweep: Path) -> None:
    program = (
        "import sys; from nnopt.cli.main import run_verb\n"
        "assert run_verb(['compare', 'sweep', '--baseline', 'optimizer=adam']) == 0\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'hydra', 'scipy.stats'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_comparison_of_real_sweep_prints_differences(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    overrides = ["epochs=1", "dataset.samples_per_class=20", "plots=false", "hydra.sweep.dir=s"]
    assert nnopt("run", "-m", "regularizer=none,l2", "seed=0,1", *overrides) == 0
    capsys.readouterr()
    assert nnopt("compare", "s", "--baseline", "regularizer=none") == 0
    rows = lines_of(capsys)
    assert rows[1].startswith("regularizer n test_accuracy")
    assert rows[2].startswith("l2 2 ")
    assert rows[3].startswith("none 2 ")
    assert rows[3].endswith("baseline")
