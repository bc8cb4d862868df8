"""The command line: commands, one-line errors, exit codes and imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nnopt as package
from nnopt.cli import main as cli
from nnopt.errors import (
    ConfigError,
    DataError,
    DivergedError,
    ModelError,
    NnoptError,
    OutputError,
)

Run = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Captured = pytest.CaptureFixture[str]


def imported_by(code: str) -> set[str]:
    """Return the top-level modules that a new interpreter has loaded after running the code."""
    script = f"import sys\n{code}\nprint('|', *{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.rsplit("|", 1)[1].split())


@pytest.mark.parametrize(
    "arguments", [["version"], ["--version"], [], ["--help"], ["-h"], ["help"]]
)
def test_version_and_help_import_nothing_heavy(arguments: list[str]) -> None:
    loaded = imported_by(f"from nnopt.cli.main import run_verb; run_verb({arguments})")
    assert not loaded & {"numpy", "hydra", "omegaconf", "rich", "torch", "yaml", "difflib"}


def test_version_is_printed(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("version") == 0
    assert capsys.readouterr().out == f"{package.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_shows_every_command_with_an_example(
    nnopt: Run, capsys: Captured, arguments: list[str]
) -> None:
    assert nnopt(*arguments) == 0
    stdout = capsys.readouterr().out
    for verb in [*cli.VERBS, "version"]:
        assert re.search(rf"^  nnopt {verb}\b", stdout, re.MULTILINE), verb
    for verb in cli.VERBS:
        assert re.search(rf"^      nnopt {verb} ", stdout, re.MULTILINE), verb
    assert max(map(len, stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("rnu", "did you mean 'run'?"), ("descrbe", "did you mean 'describe'?"), ("xyz", "--help")],
)
def test_unknown_command_is_refused_with_nearest_name(
    nnopt: Run, capsys: Captured, verb: str, hint: str
) -> None:
    assert nnopt(verb) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"unknown verb {verb!r}" in captured.err
    assert hint in captured.err
    assert captured.out == ""


ERRORS: list[tuple[BaseException, int]] = [
    (ConfigError(["one", "two"]), 2),
    (DataError("one"), 3),
    (ModelError("one"), 4),
    (DivergedError("one"), 5),
    (OutputError("one"), 6),
    (MemoryError("one"), 5),
    (NnoptError("one"), 1),
    (ZeroDivisionError("one"), 1),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda x: type(x).__name__)
def test_every_error_has_its_exit_code(
    nnopt: Run,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    debug: bool,
) -> None:
    def fail(arguments: list[str]) -> int:
        assert arguments == ["x=1"]
        raise error

    monkeypatch.setattr("nnopt.cli.run.main", fail)
    assert nnopt("run", "x=1", *(["--debug"] if debug else [])) == code
    stderr = capsys.readouterr().err
    shows_traceback = debug and isinstance(error, Exception)
    assert ("Traceback" in stderr) is shows_traceback
    lines = [line for line in stderr.splitlines() if line.startswith("nnopt: ")]
    assert len(lines) == (2 if code == 2 else 1)
    if not shows_traceback:
        assert stderr.splitlines() == lines


def test_debug_option_prints_traceback(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("describe", "epochs=0") == 2
    assert capsys.readouterr().err.startswith("nnopt: error: epochs = 0: ")
    assert nnopt("describe", "epochs=0", "--debug") == 2
    stderr = capsys.readouterr().err
    assert "Traceback" in stderr
    assert "ConfigError" in stderr


@pytest.mark.parametrize("verb", ["run", "describe", "gradcheck", "lr-find"])
def test_wrong_config_prints_one_line_per_problem(
    nnopt: Run, capsys: Captured, workplace: Path, verb: str
) -> None:
    assert nnopt(verb, "epochs=0", "optimizer.lrr=1") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 2
    assert all(line.startswith("nnopt: error: ") for line in captured.err.splitlines())
    assert list(workplace.iterdir()) == []


def test_describe_command_prints_layers(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("describe", "architecture.hidden=[5]", "regularizer.norm=batch") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["layer", "output", "shape", "parameters", "FLOPs"],
        ["input", "2"],
        ["dense1", "5", "10", "20"],
        ["batch_norm1", "5", "10", "20"],
        ["relu1", "5", "0", "5"],
        ["dense2", "3", "18", "33"],
        ["total", "38", "78"],
    ]


def test_describe_command_indents_nested_layers(nnopt: Run, capsys: Captured) -> None:
    layers = "architecture.layers=[{residual: [tanh]}, {dense: classes}]"
    assert nnopt("describe", "architecture=layers", layers) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("residual1 ")
    assert lines[3].startswith("  residual1.tanh1 ")


def test_wrong_layers_are_reported(nnopt: Run, capsys: Captured, workplace: Path) -> None:
    layers = "architecture.layers=[{dense: 5}, rellu, {dense: classes}]"
    assert nnopt("run", "architecture=layers", layers) == 2
    assert "architecture.layers[1]: unknown layer 'rellu'" in capsys.readouterr().err
    assert nnopt("run", "architecture=layers", "architecture.layers=[{dense: 5}]") == 2
    assert "dense1" in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


def test_missing_data_gives_exit_code_3(nnopt: Run, capsys: Captured, workplace: Path) -> None:
    assert nnopt("run", "dataset=mnist") == 3
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert "nnopt data fetch mnist" in stderr
    assert not (workplace / "outputs").exists()


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["-x"], ["--config-name=other"], ["--config-path=x"]]
)
def test_unknown_flags_are_refused(nnopt: Run, capsys: Captured, arguments: list[str]) -> None:
    assert nnopt("run", *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_error_about_config_name_option_proposes_config_dir(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("run", "--config-name=other") == 2
    message = capsys.readouterr().err
    assert "--config-dir adds a folder" in message
    assert "epochs=3" not in message


def test_flags_run_and_resolve_do_not_change_output_of_cfg_job(
    nnopt: Run, capsys: Captured
) -> None:
    assert nnopt("run", "--run", "--cfg", "job", "--resolve") == 0
    resolved = capsys.readouterr().out
    assert nnopt("run", "--cfg", "job") == 0
    assert capsys.readouterr().out == resolved
    assert nnopt("run", "--resolve") == 2
    assert "--resolve has no effect without --cfg; add --cfg job" in capsys.readouterr().err


@pytest.mark.slow
def test_help_and_cfg_options_print_text_and_write_no_file(
    start_nnopt: Start, workplace: Path
) -> None:
    help_, cfg = start_nnopt("run", "--help"), start_nnopt("run", "--cfg", "job", "epochs=7")
    out, err = help_.communicate(timeout=60)
    assert (help_.returncode, err) == (0, "")
    assert "optimizer: adadelta, adagrad, adam" in out
    out, err = cfg.communicate(timeout=60)
    assert (cfg.returncode, err) == (0, "")
    assert "\nepochs: 7\n" in out
    assert list(workplace.iterdir()) == []


def test_help_of_lr_find_imports_no_torch(workplace: Path) -> None:
    code = """
from nnopt.cli.main import run_verb
try:
    run_verb(["lr-find", "--help"])
except SystemExit as ended:
    assert ended.code == 0
"""
    loaded = imported_by(code)
    assert not loaded & {"torch", "torchvision", "matplotlib", "pandas"}


@pytest.mark.slow
def test_numpy_runs_import_no_torch(start_nnopt: Start, workplace: Path) -> None:
    """Plots, including the decision boundary, and predictions need no PyTorch."""
    run = ["run", "epochs=2", "dataset.samples_per_class=20"]
    predict = ["predict", "outputs/latest", "x.csv", "--out", "p.csv"]
    Path("x.csv").write_text("0,1\n")
    commands = [run, ["evaluate", "outputs/latest"], predict]
    code = f"from nnopt.cli.main import run_verb; print(*map(run_verb, {commands}))"
    loaded = imported_by(code)
    assert not loaded & {"torch", "torchvision", "pandas", "sklearn", "pooch"}
    assert "matplotlib" in loaded
    assert len(list(workplace.glob("outputs/runs/*/plots/*.png"))) >= 4
    assert Path("p.csv").read_text().count("\n") == 2


def test_python_m_nnopt_equals_the_command(nnopt: Run, capsys: Captured, workplace: Path) -> None:
    for arguments, code in ((["version"], 0), (["rnu"], 2)):
        assert nnopt(*arguments) == code
        command = [sys.executable, "-m", "nnopt", *arguments]
        result = subprocess.run(command, cwd=workplace, capture_output=True, text=True)
        assert (result.returncode, result.stdout, result.stderr) == (code, *capsys.readouterr())


def test_closed_pipe_does_not_stop_training(workplace: Path) -> None:
    command = "from nnopt.cli.main import main; main()"
    arguments = ["run", "epochs=30", "dataset.samples_per_class=20", "plots=false"]
    shell = f'"$0" -c "{command}" {" ".join(arguments)} | head -1; echo "codes ${{PIPESTATUS[@]}}"'
    result = subprocess.run(
        ["bash", "-c", shell, sys.executable],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert result.stdout.splitlines()[-1] == "codes 0 0"
    assert result.stderr == ""
    (metrics,) = workplace.glob("outputs/runs/*/metrics.csv")
    assert len(metrics.read_text().splitlines()) == 31
