"""``initializer.from``: a training that starts with the weights of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.config.compose import compose_config, make_plan
from nnopt.recipe.prepare import prepare
from nnopt.recipe.start_weights import initial_weights
from nnopt.results.weights import Arrays, read_weights

Nnopt = Callable[..., int]
Captured = pytest.CaptureFixture[str]

QUICK = ["dataset.samples_per_class=20", "plots=false", "progress=none", "epochs=2"]
FROZEN = ["optimizer.lr=1e-30", "max_steps=2"]
LAYERS = "[{dense: 8}, {residual: [{dense: 8}, batch_norm]}, {dense: classes}]"
RESIDUAL = ["architecture=layers", f"architecture.layers={LAYERS}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the run ``a``, and ``b`` with another seed and residual layers."""
    from nnopt.cli.main import run_verb

    folder = tmp_path_factory.mktemp("trained")
    assert run_verb(["run", *QUICK, f"hydra.run.dir={folder}/a"]) == 0
    assert run_verb(["run", *QUICK, *RESIDUAL, "seed=1", f"hydra.run.dir={folder}/b"]) == 0
    return folder


@pytest.fixture
def a(trained: Path, workplace: Path) -> Path:
    """Return a copy of the run ``a`` in the current folder."""
    return Path(shutil.copytree(trained / "a", workplace / "a"))


def weights(folder: str | Path, epoch: str = "last") -> Arrays:
    return read_weights(Path(folder, f"model_{epoch}.npz"))


def test_initial_weights_are_the_best_weights_and_statistics_of_a_run(trained: Path) -> None:
    config = compose_config([*QUICK, *RESIDUAL, f"initializer.from={trained}/b"])
    prepared = prepare(config)
    found = initial_weights(config, prepared.architecture, prepared.dataset)
    best = weights(trained / "b", "best")
    assert found.keys() == best.keys()
    assert any("running_var" in name for name in best)
    for name, array in best.items():
        assert_array_equal(found[name], array)


def test_torch_training_starts_with_the_weights_of_a_numpy_run(nnopt: Nnopt, a: Path) -> None:
    start = ["initializer.from=a", "backend=torch", "hydra.run.dir=c"]
    assert nnopt("run", *QUICK, *start, *FROZEN) == 0
    best = weights(a, "best")
    for name, array in weights("c").items():
        assert_allclose(array, best[name], rtol=0, atol=1e-20)


def test_link_to_the_latest_run_is_resolved_before_it_changes(nnopt: Nnopt, a: Path) -> None:
    """``outputs/latest`` is a link to the new run when its training starts."""
    Path("outputs").mkdir()
    Path("outputs/latest").symlink_to(a.resolve())
    assert nnopt("run", *QUICK, "initializer.from=outputs/latest", *FROZEN) == 0
    assert Path("outputs/latest").resolve() != a.resolve()
    best = weights(a, "best")
    for name, array in weights("outputs/latest").items():
        assert_allclose(array, best[name], rtol=0, atol=1e-20)


def test_skipped_layers_keep_the_new_weights_of_the_seed(nnopt: Nnopt, trained: Path) -> None:
    changes = [*RESIDUAL, *FROZEN, "dataset.classes=4"]
    start = [f"initializer.from={trained}/b", "initializer.skip=[residual1,dense2]"]
    assert nnopt("run", *QUICK, *changes, *start, "hydra.run.dir=c") == 0
    assert nnopt("run", *QUICK, *changes, "hydra.run.dir=d") == 0
    new, best, found = weights("d"), weights(trained / "b", "best"), weights("c")
    for name, array in found.items():
        expected = best if name.startswith("dense1.") else new
        if "running" not in name:
            assert_allclose(array, expected[name], rtol=0, atol=1e-20)


def test_weights_of_another_network_are_refused_with_all_shapes(
    nnopt: Nnopt, a: Path, capsys: Captured
) -> None:
    assert nnopt("run", *QUICK, "initializer.from=a", "dataset.classes=5") == 2
    error = capsys.readouterr().err
    for part in (
        f"initializer.from = '{a}' has another network: ",
        "dense2.weight is (3, 64), expected (5, 64); ",
        "dense2.bias is (3,), expected (5,); ",
        "initializer.skip=[dense2] starts these layers with new weights",
    ):
        assert part in error
    deep = f"architecture.hidden={[4] * 8}".replace(" ", "")
    assert nnopt("run", *QUICK, "initializer.from=a", deep) == 2
    error = capsys.readouterr().err
    assert all(f"it has no dense{n}.bias (" in error for n in range(3, 10))
    assert error.count("\n") == 1
    assert not Path("outputs").exists()


REFUSED: dict[str, tuple[list[str], str]] = {
    "no folder": (["initializer.from=nowhere"], "'nowhere' is not a folder"),
    "no run": (["initializer.from=."], "is not the folder of a run"),
    "an unknown layer": (
        ["initializer.from=a", "initializer.skip=[dens2]"],
        "initializer.skip contains the unknown layer 'dens2'; did you mean 'dense2'?",
    ),
    "all layers": (
        ["initializer.from=a", "initializer.skip=[dense1,dense2]"],
        "has no effect, because initializer.skip contains all layers",
    ),
    "no start": (["initializer.skip=[dense1]"], "has no effect without initializer.from"),
    "two starts": (
        ["initializer.from=a", "pruning=magnitude", "pruning.from=a"],
        "and pruning.from both select the weights",
    ),
    "a scale": (["initializer.from=a", "initializer.scale=2"], "initializer.scale = 2.0 has no"),
    "another hash": (
        ["initializer.from=a", "initializer.from_sha256=00"],
        "but initializer.from_sha256 = '00'; set initializer.from_sha256=null",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("a")
def test_impossible_start_is_refused_before_a_folder_exists(
    nnopt: Nnopt, capsys: Captured, overrides: list[str], message: str
) -> None:
    assert nnopt("run", *QUICK, *overrides) == 2
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.usefixtures("a")
def test_start_from_an_unfinished_run_is_refused(nnopt: Nnopt, capsys: Captured) -> None:
    path = Path("a/summary.json")
    values = json.loads(path.read_text()) | {"status": "interrupted"}
    values.pop("sha256")
    path.write_text(json.dumps(values))
    assert nnopt("run", *QUICK, "initializer.from=a") == 2
    assert "its status is 'interrupted'" in capsys.readouterr().err


@pytest.mark.usefixtures("a")
def test_start_from_damaged_weights_is_refused(nnopt: Nnopt, capsys: Captured) -> None:
    data = bytearray(Path("a/model_best.npz").read_bytes())
    data[300] ^= 1
    Path("a/model_best.npz").write_bytes(data)
    assert nnopt("run", *QUICK, "initializer.from=a") == 4
    assert "a/model_best.npz is damaged: its SHA-256 is" in capsys.readouterr().err


def test_identity_of_a_point_depends_on_the_weights_and_not_on_their_path(
    a: Path, trained: Path
) -> None:
    def identity(*overrides: str) -> str:
        return make_plan([*QUICK, *overrides]).points[0].id

    shutil.copytree("a", "same")
    ids = [identity(f"initializer.from={x}") for x in ("a", "same", trained / "b")]
    assert ids[0] == ids[1] != ids[2]
    assert len({identity(), *ids, identity("initializer.from=a", "initializer.skip=[dense2]")}) == 4
    model = json.loads(Path("a/model.json").read_text())
    config = compose_config([*QUICK, "initializer.from=a"])
    assert config.initializer.from_sha256 == model["weights"]["best"]["sha256"]
    assert config.initializer.from_ == str(a)


@pytest.mark.usefixtures("a")
def test_resumed_run_equals_an_uninterrupted_one_and_refuses_other_weights(
    nnopt: Nnopt, trained: Path, capsys: Captured
) -> None:
    start = [*QUICK, "initializer.from=a", "pruning=magnitude", "pruning.rewind=initial"]
    assert nnopt("run", *start, "hydra.run.dir=whole") == 0
    stop = ["max_time=1e-9", "checkpoint.interval=0"]
    assert nnopt("run", *start, *stop, "hydra.run.dir=parts") == 5
    shutil.move("a", "moved")
    shutil.copytree(trained / "b", "a")
    assert nnopt("resume", "parts", "max_time=null") == 4
    assert "are not those with the SHA-256" in capsys.readouterr().err
    shutil.rmtree("a")
    assert nnopt("resume", "parts", "max_time=null") == 2
    assert "is not a folder" in capsys.readouterr().err
    assert nnopt("resume", "parts", "max_time=null", "initializer.from=moved") == 0
    for name, array in weights("whole").items():
        assert_array_equal(weights("parts")[name], array)


@pytest.mark.usefixtures("a")
def test_sweep_over_seeds_that_start_from_a_run_is_extended(nnopt: Nnopt) -> None:
    arguments = [*QUICK, "initializer.from=a", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert nnopt("run", "-m", *arguments) == 0
    assert nnopt("resume", "sweep", "seed=2") == 0
    summaries = [json.loads(x.read_text()) for x in Path("sweep").glob("*/summary.json")]
    digests = {x["config"]["initializer"]["from_sha256"] for x in summaries}
    assert [len(summaries), len(digests)] == [3, 1]


@pytest.mark.usefixtures("a")
def test_learning_rate_finder_starts_with_the_weights_of_the_run(nnopt: Nnopt) -> None:
    def first_loss(*overrides: str) -> float:
        arguments = [*QUICK, *overrides, "lr_find.steps=20", "hydra.run.dir=found"]
        assert nnopt("lr-find", *arguments) in (0, 5)
        line = Path("found/lr_find.csv").read_text().splitlines()[1]
        shutil.rmtree("found")
        return float(line.split(",")[2])

    summary = json.loads(Path("a/summary.json").read_text())
    assert first_loss("initializer.from=a") == pytest.approx(summary["train_loss"], abs=0.1)
    assert first_loss() > summary["train_loss"] + 0.1


def test_initializer_file_of_an_earlier_version_needs_no_new_keys(workplace: Path) -> None:
    folder = workplace / "conf" / "initializer"
    folder.mkdir(parents=True)
    keys = "hidden: zeros\noutput: zeros\ninput: null\nscale: 1.0\nstd: 1.0\nlow: 0.0\nhigh: 1.0\n"
    (folder / "mine.yaml").write_text(keys)
    chosen = compose_config(["initializer=mine"]).initializer
    assert (chosen.hidden, chosen.from_, chosen.skip) == ("zeros", None, ())
