"""The points (configurations to run) of a command line: files, sweeps, ids and wrong overrides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnopt import schema
from nnopt.config.compose import Plan, compose_config, make_plan, point_id
from nnopt.errors import ConfigError
from nnopt.schema import Config


@pytest.fixture(autouse=True)
def _own_folder(workplace: Path) -> None:
    """Run every test in an empty folder, without a conf folder unless the test writes one."""


def problems(*overrides: str, multirun: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(overrides, multirun)
    return caught.value.problems


def ids(*overrides: str, multirun: bool = False) -> list[str]:
    return [point.id for point in make_plan(overrides, multirun).points]


def test_composition_of_single_run_gives_one_point() -> None:
    plan = make_plan(["optimizer=adam", "optimizer.lr=1e-4", "architecture.hidden=[5,4]"])
    assert isinstance(plan, Plan)
    assert (plan.is_sweep, plan.varied, plan.directory) == (False, (), None)
    (point,) = plan.points
    assert point.config.optimizer.name == "adam"
    assert point.config.optimizer.lr == 1e-4
    assert point.config.architecture.name == "mlp"
    assert point.config.architecture.hidden == (5, 4)
    assert point.overrides == (
        "optimizer=adam",
        "optimizer.lr=0.0001",
        "architecture.hidden=[5,4]",
    )


def test_order_of_group_choice_and_key_on_command_line_has_no_effect() -> None:
    assert compose_config(["optimizer.lr=0.5", "optimizer=adam"]) == compose_config(
        ["optimizer=adam", "optimizer.lr=0.5"]
    )


def test_interpolated_values_are_resolved() -> None:
    config = compose_config(["dataset=moons", "architecture=layers", "data.root=/somewhere"])
    assert config.name == "moons_layers"
    assert config.data.cache == "/somewhere/cache"
    assert compose_config(["name=x_${seed}", "seed=4"]).name == "x_4"


def test_data_root_is_read_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose_config().data.root == "data"
    monkeypatch.setenv("NNOPT_DATA_DIR", "/elsewhere")
    assert compose_config().data.root == "/elsewhere"


def test_sweep_has_every_combination_in_order() -> None:
    plan = make_plan(["optimizer=sgd,adam", "epochs=3", "seed=range(3)"], multirun=True)
    assert plan.is_sweep
    assert plan.varied == ("optimizer", "seed")
    found = [(p.config.optimizer.name, p.config.seed, p.config.epochs) for p in plan.points]
    assert found == [(name, seed, 3) for name in ("sgd", "adam") for seed in range(3)]
    assert plan.points[3].overrides == ("optimizer=adam", "epochs=3", "seed=0")


def test_sweep_contains_each_distinct_point_once() -> None:
    assert len(ids("seed=1,1,2,1", multirun=True)) == 2
    assert len(ids("optimizer=sgd,sgd", "optimizer.lr=0.1,1e-1,0.10", multirun=True)) == 1


def test_whole_number_and_equal_float_give_same_point() -> None:
    assert len(ids("optimizer.lr=1,1.0", multirun=True)) == 1
    assert ids("regularizer.l2=0") == ids()


def test_sweep_values_without_multirun_are_refused() -> None:
    assert problems("seed=1,2") == ["'seed=1,2' has several values; `nnopt run -m` runs them all"]


def test_single_value_with_multirun_is_a_sweep() -> None:
    plan = make_plan(["seed=1"], multirun=True)
    assert plan.is_sweep
    assert len(plan.points) == 1


def test_ablation_without_multirun_is_a_sweep() -> None:
    plan = make_plan(["ablation=l2_spiral", "epochs=2"])
    assert plan.is_sweep
    assert plan.varied == ("regularizer.l2", "seed")
    assert len(plan.points) == 12
    assert all(point.config.epochs == 2 for point in plan.points)


def test_ablation_is_overridden_by_command_line() -> None:
    plan = make_plan(["ablation=l2_spiral", "seed=7"])
    assert {point.config.seed for point in plan.points} == {7}
    assert len(plan.points) == 4


def test_problems_of_all_points_are_reported_once() -> None:
    messages = problems("optimizer.lr=0.1,abc,-1,abc", "epochs=0", "seed=0,1", multirun=True)
    assert sorted(line.split(":")[0] for line in messages) == [
        "epochs = 0",
        "optimizer.lr = 'abc'",
        "optimizer.lr = -1.0",
    ]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optm.lr=1"], "unknown key 'optm.lr'; did you mean 'optimizer.lr'?"),
        (["optimizer.lrr=1"], "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        (["+typo=1"], "unknown key 'typo'"),
        (["++typo=1"], "unknown key 'typo'"),
        (["+optimizer.nesterov=true"], "unknown key 'optimizer.nesterov'"),
        (["epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["optimizers=adam"], "unknown key 'optimizers'; did you mean 'optimizer'?"),
        (["+optimzer=adam"], "unknown key 'optimzer'; did you mean 'optimizer'?"),
        (["experiments=x"], "unknown key 'experiments'; did you mean 'experiment'?"),
        (["+ablations=x"], "unknown key 'ablations'; did you mean 'ablation'?"),
        (
            ["hydra/luncher=pool"],
            "'hydra/luncher=pool': did you mean 'hydra/launcher'? unsupported",
        ),
        (["hydra.run.dri=x"], "'hydra.run.dri=x': did you mean 'hydra.run.dir'? unsupported"),
        (["optimizer=adm"], "optimizer = 'adm': did you mean 'adam'? allowed: adadelta, adagrad"),
        (["backend=jax"], "backend = 'jax': allowed: numpy, torch"),
        (["experiment=mnist"], "experiment = 'mnist': did you mean 'mnist_mlp'?"),
        (["epochs"], "cannot read 'epochs': write key=value"),
        (["epochs=[1"], "cannot read 'epochs=[1': its brackets or quotes do not match"),
        (["=5"], "unknown key ''"),
        (["~optimizer.lr"], "'~optimizer.lr"),
        (["epochs="], "epochs = '': needs a whole number"),
        (["dataset=csv"], "the key 'dataset.train' is missing; set it with dataset.train=..."),
        (["hydra.job.chdir=true"], "'hydra.job.chdir=true': unsupported setting of Hydra"),
        (["hydra/launcher=joblib"], "hydra/launcher = 'joblib': allowed: "),
        (["optimizer.lr=${oc.env:NNOPT_NOT_SET}"], ""),
        (["optimizer.lr=${optimizer.lr}"], ""),
        (["seed=${epochs}", "epochs=${seed}"], ""),
        (["seed=${nowhere}"], ""),
    ],
    ids=lambda x: " ".join(x)[:40] if isinstance(x, list) else "",
)
def test_composition_error_is_one_line(overrides: list[str], expected: str) -> None:
    messages = problems(*overrides)
    assert len(messages) == 1
    assert messages[0].startswith(expected)
    assert "\n" not in messages[0]
    assert "Traceback" not in messages[0]


def test_composition_error_contains_all_problems() -> None:
    messages = problems(
        "optm.lr=1", "+typo=2", "epochs=-3", "optimizer.lr=nan", "backend.dtype=f16"
    )
    assert len(messages) == 5
    assert {line.split(" ")[0] for line in messages} == {
        "unknown",
        "epochs",
        "optimizer.lr",
        "backend.dtype",
    }


def test_composition_error_contains_all_unreadable_overrides() -> None:
    assert len(problems("epochs", "x[=1", "seed")) == 3


def user_file(name: str, text: str) -> None:
    path = Path("conf", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_user_file_replaces_shipped_file_of_the_same_name() -> None:
    user_file("optimizer/sgd.yaml", "name: sgd\nlr: 0.077\n")
    assert compose_config(["optimizer=sgd"]).optimizer.lr == 0.077
    assert compose_config(["optimizer=adam"]).optimizer.lr == 1e-3


def test_user_files_are_added_to_groups() -> None:
    user_file("optimizer/gentle.yaml", "name: sgd\nlr: 0.001\n")
    user_file(
        "experiment/mine.yaml",
        "# @package _global_\ndefaults:\n  - override /optimizer: gentle\nname: mine\nepochs: 7\n",
    )
    config = compose_config(["experiment=mine"])
    assert (config.name, config.epochs, config.optimizer.lr) == ("mine", 7, 0.001)
    assert "gentle" in problems("optimizer=gentel")[0]


def test_user_ablation_is_sweep() -> None:
    user_file(
        "ablation/mine.yaml",
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      epochs: 2,3\n      seed: range(2)\n",
    )
    plan = make_plan(["ablation=mine"])
    assert [(p.config.epochs, p.config.seed) for p in plan.points] == [
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 1),
    ]


def test_wrong_value_in_user_file_is_refused() -> None:
    user_file("optimizer/bad.yaml", "name: sgd\nlr: -1\nmu: 3\n")
    messages = problems("optimizer=bad")
    assert len(messages) == 2
    assert any(line.startswith("optimizer.lr = -1") for line in messages)
    assert any(line.startswith("unknown key 'optimizer.mu'") for line in messages)


def test_user_file_with_broken_yaml_is_refused_in_one_line() -> None:
    user_file("optimizer/broken.yaml", "name: sgd\nlr: [0.1\n")
    (message,) = problems("optimizer=broken")
    assert "broken.yaml" in message
    assert "line" in message


def test_yaml_tags_in_user_file_are_not_executed() -> None:
    user_file(
        "optimizer/evil.yaml", "name: sgd\nlr: !!python/object/apply:os.system ['touch pwned']\n"
    )
    assert len(problems("optimizer=evil")) == 1
    assert not Path("pwned").exists()


def test_files_in_config_dir_are_found() -> None:
    Path("more", "optimizer").mkdir(parents=True)
    Path("more", "optimizer", "slow.yaml").write_text("name: sgd\nlr: 1e-6\n")
    plan = make_plan(["optimizer=slow"], config_dir="more")
    assert plan.points[0].config.optimizer.lr == 1e-6
    with pytest.raises(ConfigError, match="--config-dir = 'fewer': needs a folder that exists"):
        make_plan([], config_dir="fewer")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"plots": False},
        {"layer_statistics": True},
        {"tensorboard": True},
        {"progress": "none"},
        {"data.root": "/elsewhere"},
        {"data.cache": "/elsewhere"},
        {"data.download": True},
    ],
    ids=str,
)
def test_point_id_ignores_keys_without_effect(
    make_config: Callable[..., Config], changes: dict[str, Any]
) -> None:
    assert point_id(make_config(**changes)) == point_id(make_config())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"epochs": 61},
        {"max_steps": 100},
        {"batch_size": 33},
        {"drop_last": True},
        {"loss": "hinge"},
        {"loss": "mse"},
        {"loss": "focal"},
        {"loss": "focal", "focal_gamma": 1.0},
        {"test_weights": "last"},
        {"dataset.noise": 0.3},
        {"dataset.validation": schema.Validation("train", 0.3)},
        {"backend": "torch"},
        {"backend.dtype": "float64"},
        {"backend.threads": 1},
        {"architecture.hidden": (65,)},
        {"architecture": schema.LayersConfig("layers", ({"dense": "classes"},))},
        {"regularizer.l2": 1e-9},
        {"regularizer.augmentation.flip": True},
        {"optimizer": "nesterov"},
        {"optimizer.lr": 0.11},
        {"schedule.warmup_epochs": 1.0},
        {"initializer.output": "zeros"},
        {"early_stopping.monitor": "loss"},
    ],
    ids=str,
)
def test_point_id_changes_with_keys_that_affect_results(
    make_config: Callable[..., Config], changes: dict[str, Any]
) -> None:
    assert point_id(make_config(**changes)) != point_id(make_config())


EARLIER_IDS: dict[tuple[str, ...], str] = {
    ("optimizer=rmsprop",): "spiral-numpy-mlp-rmsprop-s0-4470336ff6",
    ("optimizer=adam",): "spiral-numpy-mlp-adam-s0-4cc52d29ec",
    ("optimizer=adamw", "initializer=normal"): "spiral-numpy-mlp-adamw-s0-8113029256",
    (
        "schedule=plateau",
        "schedule.min_delta=0.1",
        "initializer=uniform",
    ): "spiral-numpy-mlp-momentum-s0-3a2fa35971",
}
"""Overrides -> id that nnopt computed at commit 5c38ebc, which has fewer keys."""


@pytest.mark.parametrize("overrides", EARLIER_IDS, ids=" ".join)
def test_point_id_does_not_depend_on_later_keys_with_defaults(overrides: tuple[str, ...]) -> None:
    assert ids(*overrides) == [EARLIER_IDS[overrides]]


def test_point_id_with_min_delta_differs_from_that_of_an_earlier_version() -> None:
    """At commit 5c38ebc, ``min_delta`` also determined the best weights."""
    (id_,) = ids("early_stopping.patience=5", "early_stopping.min_delta=0.1")
    assert id_.startswith("spiral-numpy-mlp-momentum-s0-")
    assert id_ != "spiral-numpy-mlp-momentum-s0-ac7adf5eca"


LATER_KEYS = [
    ({"optimizer": "rmsprop"}, {"optimizer.momentum": 0.1}),
    ({"optimizer": "rmsprop"}, {"optimizer.centered": True}),
    ({"optimizer": "adam"}, {"optimizer.amsgrad": True}),
    ({}, {"early_stopping.min_delta_mode": "relative"}),
    ({}, {"initializer.scale": 2.0}),
    ({"initializer.hidden": "normal"}, {"initializer.std": 0.1}),
    ({"initializer.hidden": "uniform"}, {"initializer.low": -1.0}),
    ({"initializer.hidden": "uniform"}, {"initializer.high": 2.0}),
    (
        {"schedule": schema.PlateauConfig("plateau", 0, 5, 0.5, 0.1, "absolute")},
        {"schedule.min_delta_mode": "relative"},
    ),
]


@pytest.mark.parametrize(("choice", "changes"), LATER_KEYS, ids=str)
def test_point_id_depends_on_later_keys_with_other_values(
    make_config: Callable[..., Config], choice: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert point_id(make_config(**choice, **changes)) != point_id(make_config(**choice))


def test_point_id_is_same_in_any_sweep() -> None:
    alone = ids("optimizer=adam", "seed=1")
    assert alone[0] in ids("optimizer=sgd,adam", "seed=0,1", multirun=True)
    assert alone[0] in ids("seed=1,0", "optimizer=adam", multirun=True)
    assert alone[0].startswith("spiral-numpy-mlp-adam-s1-")
    assert len(alone[0]) < 60


def test_point_id_is_same_in_every_process() -> None:
    code = (
        "import json; from nnopt.config.compose import make_plan; "
        "print(json.dumps([p.id for p in make_plan(['seed=0,1', 'optimizer=adam'], True).points]))"
    )
    for hash_seed in ("1", "99"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert json.loads(result.stdout) == ids("seed=0,1", "optimizer=adam", multirun=True)


@pytest.mark.parametrize(("kind", "multirun"), [("run", False), ("sweep", True)])
def test_directory_of_a_plan_is_the_configured_folder(kind: str, multirun: bool) -> None:
    find: Callable[..., Plan] = lambda *overrides: make_plan(overrides, multirun)  # noqa: E731
    assert find(f"hydra.{kind}.dir=here/${{seed}}", "seed=3").directory == "here/3"
    assert find("seed=3").directory is None
    other = "run" if multirun else "sweep"
    assert (
        f"hydra.{other}.dir does not apply"
        in problems(f"hydra.{other}.dir=x", multirun=multirun)[0]
    )


def test_composition_warns_about_repeated_key(caplog: pytest.LogCaptureFixture) -> None:
    assert make_plan(["epochs=1", "seed=4", "epochs=2"]).points[0].config.epochs == 2
    assert [record.getMessage() for record in caplog.records] == [
        "epochs=1 is overridden by epochs=2"
    ]


def test_point_id_ignores_data_root_except_for_csv() -> None:
    assert len(ids("dataset=mnist", "data.root=a,b", multirun=True)) == 1
    assert len(ids("dataset=csv", "dataset.train=t.csv", "data.root=a,b", multirun=True)) == 2


def test_sweep_with_duplicate_points_gives_warning(caplog: pytest.LogCaptureFixture) -> None:
    ids("seed=1,1,2", multirun=True)
    assert "1 of 3 points" in caplog.text


def test_sweep_without_points_or_over_several_ablations_is_refused() -> None:
    assert "has no value" in problems("seed=range(0)", multirun=True)[0]
    (message,) = problems("ablation=l2_spiral,optimizer_spiral", multirun=True)
    assert "run one ablation at a time" in message


def test_composition_error_contains_other_problems_despite_missing_file() -> None:
    messages = problems(
        "optimizer=adm", "epochs=-1", "loss=hinge", "regularizer.label_smoothing=0.1"
    )
    assert [line.split()[0] for line in messages] == [
        "optimizer",
        "epochs",
        "regularizer.label_smoothing",
    ]


def test_error_about_an_unknown_key_ends_with_all_keys_and_groups() -> None:
    (message,) = problems("zzz=1")
    groups = "early_stopping, target, evaluation, checkpoint, ablation, debug, experiment"
    assert message.endswith(groups)
