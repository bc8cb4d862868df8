"""Runs and sweeps with plug-ins: worker processes, resuming, results, help and completion."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nnopt.config.compose import make_plan
from nnopt.config.plugins.load import deactivate
from nnopt.results.summary import values_digest, write_summary
from nnopt.results.weights import read_weights

PACKAGE = Path(__file__).resolve().parents[3] / "nnopt"
EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples" / "plugins"

SIGNUM = ("plugins=[signum.py]", "optimizer=signum")
SHORT = (
    *("architecture.hidden=[4]", "dataset.samples_per_class=20", "plots=false", "progress=none"),
    *("epochs=2", "checkpoint.interval=null", "evaluation.train=false"),
)

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def examples(workplace: Path) -> Iterator[None]:
    """Copy the plug-ins of the guide into the working folder."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, workplace)
    yield
    deactivate()


def rows_of(folder: str) -> list[dict[str, str]]:
    with open(Path(folder) / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def errors_of(captured: Captured) -> list[str]:
    return captured.readouterr().err.splitlines()


@pytest.mark.slow
def test_sweep_in_worker_processes_equals_sequential_sweep(nnopt: Run) -> None:
    sweep = ["-m", *SIGNUM, "optimizer.lr=0.1,0.01", "backend.threads=1", *SHORT]
    pool = ["hydra/launcher=pool", "hydra.launcher.workers=1"]
    assert nnopt("run", *sweep, "hydra.sweep.dir=one") == 0
    assert nnopt("run", *sweep, *pool, "hydra.sweep.dir=two") == 0
    one, two = rows_of("one"), rows_of("two")
    assert [row["id"] for row in one] == [row["id"] for row in two]
    assert [row["test_loss"] for row in one] == [row["test_loss"] for row in two]
    assert one[0]["test_loss"] != one[1]["test_loss"]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_resumed_run_equals_uninterrupted_run(nnopt: Run, backend: str) -> None:
    overrides = [*SIGNUM, *SHORT, f"backend={backend}"]
    kept = ["checkpoint.interval=0", "checkpoint.keep=true"]
    assert nnopt("run", *overrides, *kept, "epochs=1", "hydra.run.dir=first") == 0
    assert nnopt("resume", "first", "epochs=3") == 0
    assert nnopt("run", *overrides, "epochs=3", "hydra.run.dir=whole") == 0
    found, expected = (read_weights(Path(x, "model_last.npz"), None) for x in ("first", "whole"))
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_resume_refuses_a_changed_plugin_and_finds_a_moved_one(
    nnopt: Run, capsys: Captured
) -> None:
    assert nnopt("run", "-m", *SIGNUM, *SHORT, "seed=0,1", "hydra.sweep.dir=sweep") == 0
    Path("signum.py").rename("moved.py")
    capsys.readouterr()
    _forget()
    assert nnopt("resume", "sweep", "seed=0,1,2") == 4
    (error,) = errors_of(capsys)
    assert "signum.py': cannot be read: No such file" in error
    assert nnopt("resume", "sweep", "plugins=[moved.py]", "seed=0,1,2") == 0
    assert [row["status"] for row in rows_of("sweep")] == ["done"] * 3
    Path("moved.py").write_text(Path("moved.py").read_text() + "# changed")
    capsys.readouterr()
    _forget()
    assert nnopt("resume", "sweep", "seed=0,1,2,3") == 4
    assert "has changed since the configuration was recorded" in errors_of(capsys)[0]


def _forget() -> None:
    """Forget the code of all plug-ins, as at the start of a process."""
    from nnopt.config.plugins import load

    deactivate()
    load._loaded.clear()


def test_trained_layer_and_metric_of_plugins_are_used_by_evaluate_and_predict(
    nnopt: Run, capsys: Captured
) -> None:
    Path("layers.py").write_text(Path("maxout.py").read_text())
    layers = "architecture.layers=[{maxout: 4}, {dense: classes}]"
    plugins = "plugins=[layers.py, balanced_accuracy.py]"
    metrics = "evaluation.metrics=[balanced_accuracy]"
    chosen = [plugins, metrics, "architecture=layers", layers, "evaluation.predictions=true"]
    assert nnopt("run", *chosen, *SHORT[1:], "hydra.run.dir=run") == 0
    summary = json.loads(Path("run/summary.json").read_text())
    Path("layers.py").rename("moved.py")
    _forget()
    capsys.readouterr()
    assert nnopt("evaluate", "run") == 4
    assert "layers.py" in errors_of(capsys)[0]
    moved = "plugins=[moved.py]"
    assert nnopt("evaluate", "run", moved, "--out", "out", "--predictions") == 0
    assert "balanced_accuracy" in capsys.readouterr().out
    found = json.loads(Path("out/evaluation.json").read_text())["metrics"]
    assert found["balanced_accuracy"] == summary["test_balanced_accuracy"]
    assert found["accuracy"] == summary["test_accuracy"]
    own, again = (Path(folder) / "predictions.csv" for folder in ("run", "out"))
    assert own.read_bytes() == again.read_bytes()
    np.save("inputs.npy", np.zeros((2, 2), np.float32))
    assert nnopt("predict", "run", "inputs.npy", moved, "--out", "new.csv") == 0


RECEIVED = (
    ("evaluate", "run"),
    ("predict", "run", "inputs.npy", "--out", "new.csv"),
    ("run", "--from", "run", "--dry-run"),
    ("run", "--from", "run", "--cfg", "job"),
    ("resume", "run", "epochs=3"),
)
"""Command lines that read a run."""


@pytest.mark.parametrize("has_model", [True, False])
@pytest.mark.parametrize(
    "source",
    [
        *("absolute", "run/evil.py", "~/run/evil.py", "evil.py"),
        *("other/.py", "~/run/.py", "/proc/self/cwd/evil.py", "/proc/self/cwd/run/evil.py"),
    ],
)
def test_plugin_of_received_folder_is_not_executed(
    nnopt: Run,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    workplace: Path,
    source: str,
    has_model: bool,
) -> None:
    monkeypatch.setenv("HOME", str(workplace))
    np.save("inputs.npy", np.zeros((2, 2), np.float32))
    touch = "from pathlib import Path\nPath('executed').touch()\n"
    Path("evil.py").write_text(touch + Path("squareplus.py").read_text())
    chosen = ["plugins=[evil.py]", "architecture.activation=squareplus", "hydra.run.dir=run"]
    assert nnopt("run", *chosen, *SHORT) == 0
    Path("other").mkdir()
    for copied in ("run/evil.py", "run/.py", "other/.py"):
        shutil.copy("evil.py", copied)
    absolute = str(Path("run/evil.py").resolve())
    _receive(Path("run"), absolute if source == "absolute" else source, has_model)
    for command in RECEIVED:
        _forget()
        Path("executed").unlink(missing_ok=True)
        capsys.readouterr()
        assert nnopt(*command) in (2, 4), command
        assert "runs no code of a received folder" in capsys.readouterr().err, command
        assert not Path("executed").exists(), command


SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.trials=2", "optimizer.lr=interval(0.01, 0.1)")


@pytest.mark.parametrize(
    ("varied", "added"),
    [(("seed=0,1",), "seed=0,1,2"), ((*SEARCH, "seed=0"), "hydra.sweeper.trials=3")],
)
def test_plugin_of_received_command_line_is_not_executed(
    nnopt: Run, capsys: Captured, varied: tuple[str, ...], added: str
) -> None:
    """The stored points of the sweep use no plug-in, but its stored command line names one."""
    assert nnopt("run", "-m", *varied, *SHORT, "hydra.sweep.dir=sweep") == 0
    code = "from pathlib import Path\nPath('executed').touch()\n"
    Path("sweep/evil.py").write_text(code + Path("squareplus.py").read_text())
    path = Path("sweep/sweep.json")
    text = path.read_text().replace('"epochs=2"', '"epochs=2", "plugins=[sweep/evil.py]"', 1)
    body = text.partition(",\n")[2]
    digest = hashlib.sha256(body[: -len("}\n")].encode()).hexdigest()
    path.write_text(f'{{"sha256": "{digest}",\n{body}')
    capsys.readouterr()
    assert nnopt("resume", "sweep", added) in (2, 4)
    assert "runs no code of a received folder" in capsys.readouterr().err
    assert not Path("executed").exists()


@pytest.mark.slow
def test_search_with_plugin_is_resumed(nnopt: Run) -> None:
    search = [*SIGNUM, *SEARCH, *SHORT, "seed=0", "hydra.sweep.dir=search"]
    assert nnopt("run", "-m", *search) == 0
    _forget()
    assert nnopt("resume", "search", "hydra.sweeper.trials=3") == 0
    assert [row["status"] for row in rows_of("search")] == ["done"] * 3


def test_component_of_plugin_that_the_point_does_not_name_is_refused(
    nnopt: Run, capsys: Captured
) -> None:
    sweep = ["plugins=[signum.py],[squareplus.py]", "optimizer=signum", *SHORT]
    assert nnopt("run", "-m", *sweep, "hydra.sweep.dir=sweep") == 2
    assert "the optimizer 'signum' needs signum.py" in capsys.readouterr().err
    assert not Path("sweep").exists()


def test_layers_with_equal_full_names_are_refused(nnopt: Run, capsys: Captured) -> None:
    """The first layer ``dense1`` and the eleventh layer ``dense`` would both be ``dense11``."""
    Path("dense1.py").write_text(Path("maxout.py").read_text().replace('"maxout"', '"dense1"'))
    layers = ", ".join(["{dense: 2}"] * 11)
    chosen = f"architecture.layers=[{layers}, {{dense1: 2}}, {{dense: classes}}]"
    assert nnopt("describe", "plugins=[dense1.py]", "architecture=layers", chosen) == 2
    assert "layer dense11: two layers have this name" in capsys.readouterr().err


def test_metric_cannot_change_the_predictions(nnopt: Run, capsys: Captured) -> None:
    Path("greedy.py").write_text(
        "def metric(logits, labels):\n    logits[:] = 0\n    return 0.5\n"
        "def register(registry):\n    registry.metric('greedy', metric)\n"
    )
    chosen = ["plugins=[greedy.py]", "evaluation.metrics=[greedy]"]
    assert nnopt("run", *chosen, *SHORT, "hydra.run.dir=run") == 0
    assert json.loads(Path("run/summary.json").read_text())["test_greedy"] is None
    assert "read-only" in Path("run/run.log").read_text()


def _receive(folder: Path, source: str, has_model: bool) -> None:
    """Replace the recorded path of the plug-in, as the sender of a folder can."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["config"]["plugins"][0]["source"] = source
    write_summary(folder, summary)
    model = json.loads((folder / "model.json").read_text())
    model["config"]["plugins"][0]["source"] = source
    model["sha256"] = values_digest({**model, "sha256": None})
    (folder / "model.json").write_text(json.dumps(model))
    if not has_model:
        (folder / "model.json").unlink()


def test_metric_is_in_summary_table_and_comparison(nnopt: Run, capsys: Captured) -> None:
    metric = ("plugins=[balanced_accuracy.py]", "evaluation.metrics=[balanced_accuracy]")
    short = [x for x in SHORT if not x.startswith("evaluation")]
    assert nnopt("run", "-m", *metric, *short, "seed=0,1", "hydra.sweep.dir=sweep") == 0
    rows = rows_of("sweep")
    for row in rows:
        summary = json.loads(Path("sweep", row["id"], "summary.json").read_text())
        assert summary["test_balanced_accuracy"] == float(row["test_balanced_accuracy"])
        # The three classes have equally many test samples.
        assert summary["test_balanced_accuracy"] == pytest.approx(summary["test_accuracy"])
        assert 0 < summary["train_balanced_accuracy"] < 1
    capsys.readouterr()
    assert nnopt("compare", "sweep", "--metric", "test_balanced_accuracy", "--format", "json") == 0
    (setting,) = json.loads(capsys.readouterr().out)["settings"]
    mean = np.mean([float(row["test_accuracy"]) for row in rows])
    assert setting["results"]["test_balanced_accuracy"]["mean"] == pytest.approx(mean)


def test_failing_metric_does_not_end_the_run(nnopt: Run) -> None:
    function = "lambda z, y: 1 if len(z) < 20 else {}[0]"
    Path("few.py").write_text(f"def register(registry):\n  registry.metric('few', {function})")
    metric = ("plugins=[few.py]", "evaluation.metrics=[few]")
    assert nnopt("run", *metric, *SHORT, "hydra.run.dir=run") == 0
    summary = json.loads(Path("run", "summary.json").read_text())
    assert (summary["status"], summary["test_few"]) == ("done", None)
    assert (
        "the metric 'few' fails in its function: line 2: KeyError: 0"
        in Path("run", "run.log").read_text()
    )


def test_experiment_file_chooses_plugin_and_its_optimizer(nnopt: Run, capsys: Captured) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(
        "defaults: [override /optimizer: signum]\nplugins: [signum.py]\noptimizer: {lr: 0.5}\n"
    )
    Path("conf/experiment/other.yaml").write_text("epochs: 3\n")
    (point,) = make_plan(["experiment=mine", "optimizer.momentum=0.25"]).points
    assert point.container["optimizer"] == {"name": "signum", "lr": 0.5, "momentum": 0.25}
    assert point.container["plugins"][0]["source"] == str(Path("signum.py").absolute())
    points = make_plan(["experiment=mine,other"], multirun=True).points
    assert [point.config.optimizer.name for point in points] == ["signum", "momentum"]
    assert [len(point.config.plugins) for point in points] == [1, 0]


def test_help_and_completion_list_the_names_of_plugins(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nnopt("run", "--help", *SIGNUM) == 0
    text = capsys.readouterr().out
    assert "sgd, signum" in text
    assert "momentum: 0.9" in text
    monkeypatch.setenv("COMP_LINE", "nnopt run 'plugins=[signum.py]' optimizer=s")
    assert nnopt("-sc", "query=bash") == 0
    assert "optimizer=signum" in capsys.readouterr().out.split()
    monkeypatch.setenv("COMP_LINE", "nnopt run 'plugins=[missing.py]' optimizer=s")
    assert nnopt("-sc", "query=bash") == 0
    assert "optimizer=signum" not in capsys.readouterr().out.split()


def test_plugins_with_torch_parts_leave_pytorch_unimported() -> None:
    program = (
        "import sys; from nnopt.cli.main import run_verb; "
        "code = run_verb(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    plugins = ",".join(path.name for path in EXAMPLES.glob("*.py"))
    overrides = [f"plugins=[{plugins}]", "optimizer=signum", "loss=generalized_cross_entropy"]
    overrides += ["architecture.activation=squareplus", *SHORT, "epochs=1"]
    subprocess.run([sys.executable, "-c", program, "run", *overrides], check=True)


def test_command_line_without_plugins_does_not_import_them() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "plugins":
            lines = path.read_text("utf-8").splitlines()
            first = [x for x in lines if x.startswith("from nnopt.config.plugins.")]
            assert first == [], path
