"""Wrong launchers and wrong settings of a launcher are refused before a folder is created."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["hydra/launcher=pol"], ["hydra/launcher = 'pol': did you mean 'pool'?"]),
        (["hydra/launcher=basic"], ["allowed: pool, ray, sequential, submitit"]),
        (["hydra.launcher.workers=2"], ["it belongs to hydra/launcher=pool"]),
        (
            ["hydra/launcher=pool", "hydra.launcher.worker=2", "hydra.launcher.timeout=0"],
            ["did you mean 'hydra.launcher.workers'?", "hydra.launcher.timeout = 0.0: needs to be"],
        ),
        (["hydra/launcher=pool", "hydra.launcher.devices=0"], ["needs a list, such as [0]"]),
        (["hydra/launcher=submitit", "hydra.launcher.cluster=slrm"], ["did you mean 'slurm'?"]),
        (["hydra/launcher=submitit", "hydra.launcher.options=[a]"], ["needs a map"]),
        (
            [
                *("hydra/launcher=submitit", "hydra.launcher.cluster=local"),
                *("hydra.launcher.memory=4", "hydra.launcher.partition=gpu"),
            ],
            ["memory = 4.0 is for SLURM", "partition = 'gpu' is for SLURM"],
        ),
    ],
)
def test_launcher_with_wrong_settings_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured, overrides: list[str], messages: list[str]
) -> None:
    assert nnopt("run", "-m", "seed=0,1", *overrides) == 2
    err = capsys.readouterr().err
    for line in messages:
        assert line in err
    assert not (workplace / "outputs").exists()


@pytest.mark.parametrize(
    ("launcher", "package", "extra"), [("ray", "ray", "ray"), ("submitit", "submitit", "slurm")]
)
def test_launcher_with_missing_package_is_refused_before_start(
    nnopt: Run,
    workplace: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    launcher: str,
    package: str,
    extra: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *x: None if name == package else find(name, *x)
    )
    assert nnopt("run", "-m", "seed=0,1", f"hydra/launcher={launcher}") == 2
    err = capsys.readouterr().err
    assert f"needs {package}, which is not installed" in err
    assert f"pip install -c constraints.txt -e '.[{extra}]'" in err
    assert err.count("\n") == 1
    assert not (workplace / "outputs").exists()


def test_submitit_without_slurm_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(workplace))
    assert nnopt("run", "-m", "seed=0,1", "hydra/launcher=submitit") == 2
    assert "there is no srun on this machine" in capsys.readouterr().err
