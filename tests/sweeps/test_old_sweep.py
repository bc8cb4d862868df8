"""Sweeps and a search that an earlier commit of nnopt 0.1.0 wrote are read and resumed.

The folder ``sweep_of_0_1_0`` was written at commit ccc4040, before modules and keys were renamed:

    nnopt run -m epochs=2 dataset.points=10 'architecture.hidden=[4]' accumulation=2 \
        optimizer=momentum optimizer.lr=0.1,0.2,0.3 plots=false

The folder of the third point is missing, as if the sweep had been interrupted. The folder
``sweep_with_first_keys`` was written by the same code. It lacks the folders of two of four points:

    nnopt run -m epochs=5 dataset.points=10 'architecture.hidden=[4]' plots=false view=none \
        steps=4 batch_size=16 last_batch=keep,drop accumulation=2 \
        'early_stopping={check_every: 1, min_improvement: 0.0}' schedule=step schedule.warmup=1 \
        schedule.every=1 schedule.factor=0.5,0.7 regularizer.ema=0.9 regularizer.decay_all=true

The folder ``search_with_first_keys`` was written by the same code. It has five trials, without
weights:

    nnopt run -m dataset.points=8 'architecture.hidden=[2]' plots=false view=none epochs=2 \
        batch_size=8 accumulation=2 'steps=${accumulation}' schedule=step \
        hydra/sweeper=optuna hydra.sweeper.trials=5 hydra.sweeper.startup_trials=3 \
        hydra.sweeper.pruner=median hydra.sweeper.warmup_epochs=1 'schedule.every=range(1,5)' \
        'schedule.factor=interval(0.1,0.9)' 'last_batch=choice(keep,drop)' \
        'optimizer.lr=tag(log,interval(1e-3,1))' 'regularizer.ema=choice(0.5,0.9)'

``DRAWN`` contains the values of the next four trials that the same code draws in this search.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nnopt.results.summary import RENAMED

OLD = Path(__file__).parent / "sweep_of_0_1_0"
THIRD = {"optimizer.lr": "0.3", "test_accuracy": "0.43333333333333335"}


@pytest.fixture
def old_sweep(workplace: Path) -> Path:
    return Path(shutil.copytree(OLD, workplace / "sweep"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_resumed_sweep_of_earlier_code_runs_missing_point(
    nnopt: Callable[..., int], old_sweep: Path
) -> None:
    before = rows_of(old_sweep)
    assert nnopt("resume", str(old_sweep)) == 0
    after = rows_of(old_sweep)
    assert [row["status"] for row in after] == ["done"] * 3
    for row, old in zip(after, before, strict=False):
        assert row.items() >= {RENAMED.get(key, key): cell for key, cell in old.items()}.items()
    assert after[2].items() >= THIRD.items()


def test_resumed_sweep_of_earlier_code_accepts_new_values(
    nnopt: Callable[..., int], old_sweep: Path
) -> None:
    assert nnopt("resume", str(old_sweep), "optimizer.lr=0.4") == 0
    assert [row["optimizer.lr"] for row in rows_of(old_sweep)] == ["0.1", "0.2", "0.3", "0.4"]


def test_compare_and_report_commands_show_results_of_earlier_code(
    nnopt: Callable[..., int], old_sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = [row for row in rows_of(old_sweep) if row["status"] == "done"]
    assert nnopt("compare", str(old_sweep), "--format", "csv") == 0
    table = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [(row["optimizer.lr"], row["test_accuracy_mean"]) for row in table] == [
        (row["optimizer.lr"], row["test_accuracy"]) for row in done
    ]
    assert nnopt("report", str(old_sweep)) == 0
    page = (old_sweep / "report.html").read_text()
    for row in done:
        assert f'"test_accuracy":{float(row["test_accuracy"]):.6g},' in page


FIRST_KEYS = Path(__file__).parent / "sweep_with_first_keys"
SAME_SWEEP = (
    *("epochs=5", "dataset.samples_per_class=10", "architecture.hidden=[4]", "plots=false"),
    *("progress=none", "max_steps=4", "batch_size=16", "drop_last=false,true"),
    *("accumulation_steps=2", "early_stopping={validate_every: 1, min_delta: 0.0}"),
    *("schedule=step", "schedule.warmup_epochs=1", "schedule.step_size=1"),
    *("schedule.gamma=0.5,0.7", "regularizer.ema_decay=0.9"),
    "regularizer.decay_norm_and_bias=true",
)
"""The overrides of ``sweep_with_first_keys`` with the current names of the keys."""


@pytest.fixture
def sweep_with_first_keys(workplace: Path) -> Path:
    return Path(shutil.copytree(FIRST_KEYS, workplace / "old"))


def test_resumed_sweep_with_old_keys_runs_missing_points(
    nnopt: Callable[..., int], sweep_with_first_keys: Path
) -> None:
    before = rows_of(sweep_with_first_keys)
    assert nnopt("resume", str(sweep_with_first_keys)) == 0
    after = rows_of(sweep_with_first_keys)
    assert [row["status"] for row in after] == ["done"] * 4
    assert [row["drop_last"] for row in after] == ["false", "false", "true", "true"]
    assert [row["schedule.gamma"] for row in after] == ["0.5", "0.7", "0.5", "0.7"]
    for old, new in zip(before, after, strict=True):  # the old table has a row for every point
        assert (old["id"], old["test_loss"]) == (new["id"], new["test_loss"])


def test_resume_of_an_old_sweep_with_min_delta_is_refused(
    nnopt: Callable[..., int], sweep_with_first_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The earlier version also chose the best weights with ``min_delta``."""
    path = sweep_with_first_keys / "sweep.json"
    body = path.read_bytes().partition(b",\n")[2].removesuffix(b"}\n")
    body = body.replace(b'"min_improvement": 0.0', b'"min_improvement": 0.001')
    digest = hashlib.sha256(body).hexdigest().encode()
    path.write_bytes(b'{"sha256": "%s",\n%s}\n' % (digest, body))
    before = rows_of(sweep_with_first_keys)
    assert nnopt("resume", str(sweep_with_first_keys)) == 4
    assert "early_stopping.min_delta = 0.001 is from an earlier" in capsys.readouterr().err
    assert rows_of(sweep_with_first_keys) == before


def test_resume_of_an_old_sweep_refuses_old_keys_on_the_command_line(
    nnopt: Callable[..., int], sweep_with_first_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nnopt("resume", str(sweep_with_first_keys), "schedule.gamma=0.5,0.7,0.9") == 0
    assert len(rows_of(sweep_with_first_keys)) == 6
    assert "schedule.gamma" in (sweep_with_first_keys / "sweep.json").read_text()
    assert nnopt("resume", str(sweep_with_first_keys), "schedule.factor=0.3") == 2
    assert "schedule.factor is now schedule.gamma" in capsys.readouterr().err


def test_comparison_of_old_and_new_sweep_finds_same_settings(
    nnopt: Callable[..., int], sweep_with_first_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nnopt("run", "-m", *SAME_SWEEP, "hydra.sweep.dir=new") == 0
    ids = [row["id"] for row in rows_of(Path("new"))]
    assert ids == [row["id"] for row in rows_of(sweep_with_first_keys)]
    capsys.readouterr()
    assert nnopt("compare", "old", "new") == 0
    table = capsys.readouterr().out
    assert "4 runs, 4 settings" in table
    assert "a newer run has the same setting and seed: 2" in table
    assert "drop_last" in table
    assert "schedule.gamma" in table


def test_report_of_sweep_with_old_keys_shows_new_keys(
    nnopt: Callable[..., int], sweep_with_first_keys: Path
) -> None:
    assert nnopt("report", str(sweep_with_first_keys)) == 0
    page = (sweep_with_first_keys / "report.html").read_text()
    assert "schedule.gamma=0.5,0.7" in page
    assert "schedule.factor=0.5,0.7" not in page


def test_compare_command_with_old_key_or_option_reports_new_one(
    nnopt: Callable[..., int], sweep_with_first_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nnopt("compare", str(sweep_with_first_keys), "--where", "last_batch=keep") == 2
    assert "last_batch is now drop_last" in capsys.readouterr().err
    assert nnopt("compare", str(sweep_with_first_keys), "--mixed-data") == 2
    assert "--mixed-data is now --allow-mixed-data" in capsys.readouterr().err


OLD_SEARCH = Path(__file__).parent / "search_with_first_keys"
DRAWN = [
    ("1", "0.1438363699435532", "False", "0.3624203749777442", "0.5"),
    ("4", "0.36869392084152885", "True", "0.06752386904549457", "0.5"),
    ("3", "0.365600574539068", "False", "0.01644833398711462", "0.9"),
    ("2", "0.7756347305081006", "True", "0.04265292765843307", "0.5"),
]
SEARCHED_KEYS = (
    *("schedule.step_size", "schedule.gamma", "drop_last", "optimizer.lr"),
    "regularizer.ema_decay",
)


def test_resumed_search_with_old_keys_draws_same_values(
    nnopt: Callable[..., int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = Path(shutil.copytree(OLD_SEARCH, workplace / "search"))
    before = rows_of(search)
    assert nnopt("resume", str(search), "hydra.sweeper.trials=9") == 0
    after = rows_of(search)
    assert [tuple(row[key] for key in SEARCHED_KEYS) for row in after[5:]] == DRAWN
    assert [row["status"] for row in after] == [*["done"] * 5, "pruned", *["done"] * 3]
    assert [row["test_loss"] for row in before] == [row["test_loss"] for row in after[:5]]
    assert after[6]["test_loss"] == "1.38633558013033"
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("    1  "))
    assert line.split()[2:] == ["3", "0.3703", "False", "0.002146", "0.5"]
