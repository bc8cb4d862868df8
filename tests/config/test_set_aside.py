"""Values that a file sets for its optimizer or schedule are set aside if another is chosen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from nnopt.config.compose import compose_config, make_plan
from nnopt.errors import ConfigError

GLOBAL = "# @package _global_\n"

FILES = {
    "experiment/tuned": (
        "defaults:\n  - override /optimizer: momentum\n  - override /schedule: step\n"
        "optimizer: {lr: 0.3, momentum: 0.8}\n"
        "schedule: {gamma: 0.1, step_size: 3, warmup_epochs: 1}\n"
    ),
    "experiment/plain": "optimizer: {lr: 0.7}\n",
    "experiment/child": (
        "defaults:\n  - /experiment/tuned\n  - override /optimizer: adam\nname: child\n"
    ),
    "experiment/child_with_rate": (
        "defaults:\n  - /experiment/tuned\n  - override /optimizer: adam\noptimizer: {lr: 0.02}\n"
    ),
    "experiment/found": (
        "defaults:\n  - override /optimizer: momentum\noptimizer: {lr: auto, momentum: 0.8}\n"
    ),
    "experiment/shared": (
        "defaults:\n  - override /backend: torch\n"
        "dataset: {samples_per_class: 40, subset: 30, classes: 4}\n"
        "backend: {dtype: float64, deterministic: true}\n"
    ),
    "experiment/sized": "architecture: {hidden: [8], activation: tanh}\n",
    "experiment/sparse": "regularizer: {dropout: 0.1, augmentation: {mixup: 0.3}}\n",
    "ablation/rates": (
        "optimizer: {lr: 0.05}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {optimizer: 'sgd,momentum'}}}\n"
    ),
    "ablation/other": "defaults:\n  - override /optimizer: rmsprop\n",
    "ablation/other_with_rate": (
        "defaults:\n  - override /optimizer: rmsprop\noptimizer: {lr: 0.004}\n"
    ),
    "ablation/entries": (
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    grids:\n"
        "      - {optimizer: momentum}\n      - {optimizer: adam}\n"
        "      - {optimizer: adam, optimizer.lr: '0.2'}\n      - {seed: 1}\n"
    ),
}


@pytest.fixture(autouse=True)
def files(workplace: Path) -> None:
    """Write the user's configuration files."""
    for name, text in FILES.items():
        path = workplace / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(GLOBAL + text)


def optimizer_of(*overrides: str) -> tuple[str, Any]:
    config = compose_config(overrides)
    return config.optimizer.name, config.optimizer.lr


OWN = {"sgd": 0.1, "adam": 0.001, "rmsprop": 0.001, "adagrad": 0.01, "muon": 0.02}


@pytest.mark.parametrize("name", OWN)
def test_other_optimizer_on_command_line_uses_default_rate(name: str) -> None:
    backend = ["backend=torch"] if name == "muon" else []
    assert optimizer_of("experiment=tuned", f"optimizer={name}", *backend) == (name, OWN[name])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    {
        "same choice": (["optimizer=momentum"], ("momentum", 0.3)),
        "no choice": ([], ("momentum", 0.3)),
        "rate given": (["optimizer=adam", "optimizer.lr=0.01"], ("adam", 0.01)),
        "rate given first": (["optimizer.lr=0.01", "optimizer=adam"], ("adam", 0.01)),
        "rate given alone": (["optimizer.lr=0.01"], ("momentum", 0.01)),
        "later file": (["ablation=other"], ("rmsprop", 0.001)),
        "later file with a rate": (["ablation=other_with_rate"], ("rmsprop", 0.004)),
        "optimizer of the ablation": (
            ["ablation=other_with_rate", "optimizer=rmsprop"],
            ("rmsprop", 0.004),
        ),
        "optimizer of neither file": (["ablation=other_with_rate", "optimizer=sgd"], ("sgd", 0.1)),
        "optimizer of the experiment": (
            ["ablation=other_with_rate", "optimizer=momentum"],
            ("momentum", 0.3),
        ),
    }.values(),
)
def test_optimizer_uses_last_rate_set_for_it(
    overrides: list[str], expected: tuple[str, Any]
) -> None:
    assert optimizer_of("experiment=tuned", *overrides) == expected


def test_other_optimizer_with_same_keys_uses_default_values() -> None:
    nesterov = compose_config(["experiment=tuned", "optimizer=nesterov"]).optimizer
    plain = compose_config(["optimizer=nesterov"]).optimizer
    assert nesterov == plain


def test_file_that_chooses_no_optimizer_sets_rate_of_default_optimizer() -> None:
    assert optimizer_of("experiment=plain") == ("momentum", 0.7)
    assert optimizer_of("experiment=plain", "optimizer=adam") == ("adam", 0.001)


def test_rate_of_base_file_applies_only_to_its_optimizer() -> None:
    assert optimizer_of("experiment=child") == ("adam", 0.001)
    assert optimizer_of("experiment=child", "optimizer=momentum") == ("momentum", 0.3)
    assert optimizer_of("experiment=child_with_rate") == ("adam", 0.02)
    assert optimizer_of("experiment=child_with_rate", "optimizer=momentum") == ("momentum", 0.3)


def test_auto_rate_is_kept_for_every_optimizer() -> None:
    for name in ("momentum", "adam", "sgd"):
        assert optimizer_of("experiment=found", f"optimizer={name}") == (name, "auto")
    momentum = compose_config(["experiment=found", "optimizer=nesterov"]).optimizer
    assert momentum == compose_config(["optimizer=nesterov", "optimizer.lr=auto"]).optimizer


def test_rate_in_user_config_file_applies_only_to_its_optimizer(workplace: Path) -> None:
    from nnopt import conf

    text = (Path(conf.__path__[0]) / "config.yaml").read_text()
    own = text.replace("- optimizer: momentum", "- optimizer: sgd")
    (workplace / "conf" / "config.yaml").write_text(own + "optimizer: {lr: 0.6}\n")
    assert optimizer_of() == ("sgd", 0.6)
    assert optimizer_of("optimizer=adam") == ("adam", 0.001)


def test_user_optimizer_file_keeps_its_values(workplace: Path) -> None:
    (workplace / "conf" / "optimizer").mkdir()
    mine = "defaults: [adam, _self_]\nlr: 0.05\n"
    (workplace / "conf" / "optimizer" / "mine.yaml").write_text(mine)
    assert optimizer_of("experiment=tuned", "optimizer=mine") == ("adam", 0.05)
    assert optimizer_of("experiment=tuned", "optimizer=adam") == ("adam", 0.001)


def test_sweep_point_uses_the_rate_set_for_its_optimizer() -> None:
    plan = make_plan(["experiment=tuned", "optimizer=momentum,adam,sgd", "seed=1"], multirun=True)
    rates = [(p.config.optimizer.name, p.config.optimizer.lr) for p in plan.points]
    assert rates == [("momentum", 0.3), ("adam", 0.001), ("sgd", 0.1)]


def test_rate_on_command_line_of_sweep_applies_to_all_points() -> None:
    plan = make_plan(["experiment=tuned", "optimizer=adam,sgd", "optimizer.lr=0.5"], multirun=True)
    assert [p.config.optimizer.lr for p in plan.points] == [0.5, 0.5]


def test_each_grid_of_an_ablation_has_its_own_learning_rate() -> None:
    plan = make_plan(["experiment=tuned", "ablation=entries"])
    rates = [(p.config.optimizer.name, p.config.optimizer.lr) for p in plan.points]
    assert rates == [("momentum", 0.3), ("adam", 0.001), ("adam", 0.2), ("momentum", 0.3)]


def test_rate_of_ablation_applies_only_to_default_optimizer() -> None:
    plan = make_plan(["ablation=rates"])
    rates = [(p.config.optimizer.name, p.config.optimizer.lr) for p in plan.points]
    assert rates == [("sgd", 0.1), ("momentum", 0.05)]


def test_each_optimizer_in_a_search_has_its_own_learning_rate() -> None:
    pytest.importorskip("optuna")
    overrides = ["experiment=tuned", "hydra/sweeper=optuna", "optimizer=momentum,adam"]
    plan = make_plan(overrides, multirun=True)
    rates = [(p.config.optimizer.name, p.config.optimizer.lr) for p in plan.points]
    assert rates == [("momentum", 0.3), ("adam", 0.001)]


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=tuned", "optimizer=momentum,adam"],
        ["experiment=tuned", "ablation=entries"],
        ["ablation=rates"],
        ["experiment=tuned,plain", "optimizer=momentum,sgd", "schedule=step,cosine"],
    ],
)
def test_overrides_of_point_compose_to_its_configuration(overrides: list[str]) -> None:
    for point in make_plan(overrides, multirun=True).points:
        # The ablation file would override the values of the point.
        alone = [x for x in point.overrides if x != "ablation=entries"]
        assert compose_config(alone) == point.config


def test_other_schedule_uses_default_values() -> None:
    step = compose_config(["experiment=tuned", "schedule=step"]).schedule
    assert (getattr(step, "gamma", None), step.warmup_epochs) == (0.1, 1)
    overrides = ["experiment=tuned", "schedule=exponential"]
    assert compose_config(overrides).schedule == compose_config(overrides[1:]).schedule


def test_other_architecture_uses_default_values() -> None:
    overrides = ["experiment=sized", "architecture=vgg"]
    assert compose_config(overrides).architecture == compose_config(overrides[1:]).architecture


def test_other_dataset_and_backend_keep_common_keys() -> None:
    config = compose_config(["experiment=shared", "dataset=moons", "backend=numpy"])
    assert config.dataset.subset == 30
    assert getattr(config.dataset, "samples_per_class", None) == 40
    assert not hasattr(config.dataset, "classes")
    assert config.backend.dtype == "float64"


def test_unknown_key_of_file_is_still_refused(workplace: Path) -> None:
    wrong = GLOBAL + "optimizer: {rl: 0.1}\n"
    (workplace / "conf" / "experiment" / "wrong.yaml").write_text(wrong)
    with pytest.raises(ConfigError, match=r"optimizer\.rl"):
        compose_config(["experiment=wrong"])


NOTES = {
    "both rates": (
        ["experiment=tuned", "optimizer=adam"],
        ["note: optimizer=adam has its own lr=0.001; experiment/tuned sets lr=0.3 for optimizer="],
    ),
    "choice in another file": (
        ["experiment=child"],
        ["note: optimizer=adam has its own lr=0.001; experiment/tuned sets lr=0.3 for optimizer="],
    ),
    "rate given": (["experiment=tuned", "optimizer=adam", "optimizer.lr=0.01"], []),
    "same choice": (["experiment=tuned", "optimizer=momentum"], []),
    "equal values": (
        ["experiment=tuned", "optimizer=nesterov", "optimizer.lr=0.3", "optimizer.momentum=0.8"],
        [],
    ),
    "values not on the command line": (
        ["experiment=tuned", "optimizer=nesterov", "optimizer.lr=0.3"],
        ["note: optimizer=nesterov has its own momentum=0.9; experiment/tuned sets momentum=0.8"],
    ),
    "backend without a key": (
        ["experiment=shared", "backend=numpy"],
        ["note: backend=numpy has no deterministic; experiment/shared sets deterministic=true for"],
    ),
    "values on top of a preset": (
        ["experiment=sparse", "regularizer=dropout"],
        ["note: regularizer=dropout: experiment/sparse sets dropout=0.1, augmentation.mixup=0.3"],
    ),
    "preset not selected": (["experiment=sparse"], []),
}


@pytest.mark.parametrize(("overrides", "expected"), NOTES.values(), ids=NOTES)
def test_values_that_are_set_aside_are_noted(
    overrides: list[str], expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nnopt"):
        compose_config(overrides)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(expected)
    for message, beginning in zip(messages, expected, strict=True):
        assert message.startswith(beginning)


def test_values_that_are_set_aside_are_noted_once_in_a_sweep(
    caplog: pytest.LogCaptureFixture,
) -> None:
    overrides = ["experiment=tuned", "optimizer=momentum,adam", "initializer=he,glorot", "seed=0,1"]
    with caplog.at_level(logging.WARNING, "nnopt"):
        assert len(make_plan(overrides, multirun=True).points) == 8
    assert len(caplog.records) == 1
