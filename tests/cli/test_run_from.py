"""``nnopt run --from RUN``: the configuration of a run is repeated with changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

Nnopt = Callable[..., int]
Captured = pytest.CaptureFixture[str]

QUICK = ["dataset.samples_per_class=20", "plots=false", "progress=none", "epochs=2"]
FIRST = ["optimizer=adam", "optimizer.lr=0.02", "regularizer=dropout", "hydra.run.dir=a"]


@pytest.fixture
def a(nnopt: Nnopt) -> Path:
    assert nnopt("run", *QUICK, *FIRST) == 0
    return Path("a")


def config(folder: str) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(f"{folder}/config.yaml"))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@pytest.mark.usefixtures("a")
def test_run_is_repeated_to_the_bit(nnopt: Nnopt) -> None:
    assert nnopt("run", "--from", "a", "hydra.run.dir=b") == 0
    assert config("b") == config("a")
    assert Path("b/model_last.npz").read_bytes() == Path("a/model_last.npz").read_bytes()
    summaries = [json.loads(Path(x, "summary.json").read_text()) for x in "ab"]
    for key in ("id", "overrides", "test_loss"):
        assert summaries[0][key] == summaries[1][key]


@pytest.mark.usefixtures("a")
def test_keys_and_groups_are_changed_and_all_others_kept(nnopt: Nnopt) -> None:
    changes = ["optimizer=sgd", "seed=3", "regularizer.l2=0.1", "epochs=1"]
    assert nnopt("run", "--from", "a", *changes, "hydra.run.dir=b") == 0
    before, after = config("a"), config("b")
    assert after["optimizer"] == {"name": "sgd", "lr": 0.1}
    assert after["regularizer"] == before["regularizer"] | {"l2": 0.1}
    different = {key for key in after if after[key] != before[key]}
    assert different == {"optimizer", "seed", "regularizer", "epochs"}
    overrides = json.loads(Path("b/summary.json").read_text())["overrides"]
    kept = ["dataset.samples_per_class=20", "plots=false", "progress=none"]
    assert [x.replace("False", "false") for x in overrides] == [
        *kept,
        "regularizer=dropout",
        *changes,
    ]


@pytest.mark.usefixtures("a")
def test_default_name_follows_the_dataset(nnopt: Nnopt) -> None:
    assert nnopt("run", "--from", "a", "dataset=moons", "hydra.run.dir=b") == 0
    assert config("b")["name"] == "moons_mlp"
    assert nnopt("run", "--from", "b", "name=mine", "hydra.run.dir=c") == 0
    assert nnopt("run", "--from", "c", "dataset=circles", "hydra.run.dir=d") == 0
    assert config("d")["name"] == "mine"


@pytest.mark.usefixtures("a")
def test_stored_data_folders_create_no_cache_and_no_download(nnopt: Nnopt) -> None:
    path = Path("a/summary.json")
    values = json.loads(path.read_text())
    values.pop("sha256")
    values["config"]["data"] = {"root": "/", "cache": "elsewhere", "download": True}
    path.write_text(json.dumps(values))
    assert nnopt("run", "--from", "a", "hydra.run.dir=b") == 0
    assert config("b")["data"] == {"root": "/", "cache": None, "download": False}
    assert nnopt("run", "--from", "a", "data.root=here", "hydra.run.dir=c") == 0
    assert config("c")["data"] == {"root": "here", "cache": "here/cache", "download": False}
    assert not Path("elsewhere").exists()


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no folder": (["--from", "nowhere"], 2, "--from nowhere is not a folder"),
    "no run": (["--from", "."], 2, "--from . is not the folder of a run"),
    "a sweep": (["--from", "a", "-m", "seed=1,2"], 2, "--from repeats one run"),
    "several values": (["--from", "a", "seed=1,2"], 2, "'seed=1,2' has several values"),
    "an experiment": (["--from", "a", "experiment=mnist_mlp"], 2, "sets keys of several groups"),
    "an unknown key": (["--from", "a", "optimizer.lrr=1"], 2, "did you mean 'optimizer.lr'?"),
    "an unknown file": (["--from", "a", "optimizer=adan"], 2, "did you mean 'adam'?"),
    "a reference": (["--from", "a", "name=${seed}"], 2, "needs a plain value"),
    "a bad combination": (["--from", "a", "optimizer=nesterov", "optimizer.momentum=0"], 2, "got"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("a")
def test_wrong_repetition_is_refused_before_a_folder_exists(
    nnopt: Nnopt, capsys: Captured, arguments: list[str], code: int, message: str
) -> None:
    assert nnopt("run", *arguments) == code
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.usefixtures("a")
def test_run_with_damaged_summary_is_refused(nnopt: Nnopt, capsys: Captured) -> None:
    Path("a/summary.json").write_text("{")
    assert nnopt("run", "--from", "a") == 4
    assert "a/summary.json is damaged" in capsys.readouterr().err
