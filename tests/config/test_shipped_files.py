"""The YAML files below conf/ match the schema, and their configurations can be trained."""

from __future__ import annotations

import re
import shlex
import typing
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from nnopt import schema
from nnopt.architecture.network import ModuleArchitecture
from nnopt.backends import load_backend
from nnopt.backends.models import build_architecture, initial_arrays
from nnopt.config.compose import Point, make_plan
from nnopt.config.validate import read_config, read_plugin
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.schema.reader import types_of

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
COUNTS = {
    "ablation": 25,
    "architecture": 6,
    "backend": 2,
    "config.yaml": 1,
    "dataset": 8,
    "debug": 2,
    "experiment": 16,
    "hydra/launcher": 4,
    "hydra/sweeper": 2,
    "initializer": 9,
    "optimizer": 13,
    "pruning": 5,
    "regularizer": 19,
    "schedule": 10,
    "sweep.yaml": 1,
}

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "spiral": ((2,), 3),
    "moons": ((2,), 2),
    "circles": ((2,), 2),
    "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cinic10": ((3, 32, 32), 10),
    "csv": ((7,), 4),
}
"""Dataset -> shape of a sample, number of classes."""


def of_group(group: str) -> list[str]:
    return [Path(name).stem for name in FILES if name.startswith(f"{group}/")]


def test_every_shipped_file_is_tested() -> None:
    assert Counter(name.rpartition("/")[0] or name for name in FILES) == COUNTS
    assert set(SHAPES) == set(of_group("dataset"))


def record_of(group: str, container: dict[str, Any]) -> type:
    if group in schema.VARIANTS:
        return schema.VARIANTS[group][container["name"]]
    return {"regularizer": schema.RegularizerConfig, "initializer": schema.InitializerConfig}[group]


def assert_same_keys(container: dict[str, Any], record: type, where: str) -> None:
    assert set(container) == set(types_of(record)), where
    hints = {name.rstrip("_"): kind for name, kind in typing.get_type_hints(record).items()}
    for key, value in container.items():
        if is_dataclass(hints[key]):
            assert_same_keys(value, typing.cast(type, hints[key]), f"{where}.{key}")
        else:
            assert hints[key] is Any or not isinstance(value, dict), f"{where}.{key}"


SINGLE = ("experiment", "ablation", "debug")
OF_POINTS = [name for name in FILES if "/" in name and not name.startswith((*SINGLE, "hydra/"))]
"""Files of groups that are keys of a configuration: optimizer is one, experiment is not."""


def load_group_file(name: str) -> dict[str, Any]:
    """Return the values of a file together with those that only its base files have."""
    container = typing.cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONF / name)))
    for base in container.pop("defaults", []):
        if base != "_self_":
            below = load_group_file(f"{name.partition('/')[0]}/{base}.yaml")
            merged = OmegaConf.to_container(OmegaConf.merge(below, container))
            container = typing.cast(dict[str, Any], merged)
    return container


@pytest.mark.parametrize("name", OF_POINTS)
def test_keys_of_group_file_equal_dataclass_fields(name: str) -> None:
    container = load_group_file(name)
    group, stem = name.removesuffix(".yaml").split("/")
    if group in schema.VARIANTS:
        assert container["name"] == stem
    assert_same_keys(container, record_of(group, container), name)


def test_group_has_one_file_for_every_variant() -> None:
    for group, variants in [*schema.VARIANTS.items(), *schema.PLUGINS.items()]:
        assert set(of_group(group.replace(".", "/"))) == set(variants)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("hydra/")])
def test_sweeper_and_launcher_files_are_valid(name: str) -> None:
    container = load_group_file(name)
    group, stem = name.removesuffix(".yaml").replace("/", ".").rsplit(".", 1)
    assert container["name"] == stem
    assert_same_keys(container, schema.PLUGINS[group][stem], name)
    assert isinstance(read_plugin(group, container), schema.PLUGINS[group][stem])


def test_keys_of_main_file_equal_config_fields() -> None:
    container = typing.cast(dict[str, Any], OmegaConf.to_container(make_main()))
    groups = {
        key
        for entry in container.pop("defaults")
        if isinstance(entry, dict)
        for key in entry
        if not key.startswith("override ")  # "override" is for groups of Hydra
    }
    container.pop("hydra")
    names = {field.name for field in fields(schema.Config)}
    assert set(container) | groups - set(SINGLE) == names, "each key or group is a field"
    assert not set(container) & groups
    assert_same_keys(container["data"], schema.DataConfig, "data")
    assert_same_keys(container["early_stopping"], schema.EarlyStoppingConfig, "early_stopping")


def make_main() -> Any:
    return OmegaConf.load(CONF / "config.yaml")


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """Return the configuration of ``nnopt run`` without overrides."""
    return dict(make_plan([]).points[0].container)


@pytest.mark.parametrize("name", OF_POINTS)
def test_group_file_is_valid(name: str, base: dict[str, Any]) -> None:
    group, stem = name.removesuffix(".yaml").split("/")
    container = load_group_file(name)
    if stem == "csv":
        container["train"] = "some.csv"  # the key "train" has no default
    others = {}
    policies = ("rand_augment", "trivial_augment")
    if stem in ("augmentation", "cutout", "cutmix", *policies):  # these files need images
        images = OmegaConf.load(CONF / "dataset" / "mnist.yaml")
        others["dataset"] = OmegaConf.to_container(images)
    torch_only = *typing.get_args(schema.TorchOptimizer), schema.TorchvisionConfig
    if stem in policies or schema.VARIANTS.get(group, {}).get(stem) in torch_only:
        others["backend"] = load_group_file("backend/torch.yaml")
    if stem == "stochastic_depth":  # this file needs residual layers
        resnet = OmegaConf.load(CONF / "architecture" / "resnet.yaml")
        others["architecture"] = OmegaConf.to_container(resnet)
    chosen = getattr(read_config({**base, **others, group: container}), group)
    assert set(types_of(type(chosen))) == set(container)


def assert_builds(point: Point) -> None:
    """Check that the network fits the dataset, and that each suitable backend trains one step."""
    config = point.config
    shape, classes = SHAPES[config.dataset.name]
    chosen = getattr(config.dataset, "classes", None)
    if chosen is not None:
        classes = chosen if isinstance(chosen, int) else len(chosen)
    architecture = build_architecture(config.architecture, config.regularizer, shape, classes)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, *shape)).astype(np.float32)
    y = rng.integers(0, classes, 4)
    part, as_it_is = Part(x, y, np.arange(4)), Normalization(np.ones(shape[0]), np.zeros(shape[0]))
    dataset = Dataset("noise", ("",) * classes, part, None, part, as_it_is, {})
    arrays = initial_arrays(architecture, config.initializer, config.seed, dataset)
    is_foreign = isinstance(architecture, ModuleArchitecture)
    for name in ("torch",) if is_foreign else ("numpy", "torch"):
        backend = (
            schema.NumpyConfig("numpy", "float32", "cpu", None, False, "auto")
            if name == "numpy"
            else schema.TorchConfig("torch", "float32", "cpu", None, False, "full", "off", False)
        )
        network = load_backend(name).build_network(
            architecture, schema.Config(**{**vars(config), "backend": backend})
        )
        network.load(arrays)
        if name == "torch":
            import torch

            network.train_step(torch.tensor(x), torch.tensor(y), config.optimizer.lr, 0)
            assert network.predict(torch.tensor(x)).shape == (4, classes)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # large initial weights diverge
                network.train_step(x, y, config.optimizer.lr, 0)
                assert network.predict(x).shape == (4, classes)
        assert np.isfinite(network.read_steps().losses).all()


def header(group: str, name: str) -> str:
    lines = (CONF / group / f"{name}.yaml").read_text("utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    return lines[1]


@pytest.mark.parametrize("name", of_group("experiment"))
def test_experiment_is_composed_and_built(name: str) -> None:
    plan = make_plan([f"experiment={name}"])
    assert not plan.is_sweep
    assert plan.points[0].config.name == name
    assert header("experiment", name).startswith(f"# nnopt run experiment={name}")
    assert_builds(plan.points[0])


@pytest.mark.parametrize("name", of_group("architecture"))
def test_network_of_command_in_header_of_architecture_file_is_built(name: str) -> None:
    text = (CONF / "architecture" / f"{name}.yaml").read_text("utf-8")
    commands = re.findall(r"^# +nnopt run (.+)$", text, re.M)
    assert commands
    for command in commands:
        plan = make_plan(shlex.split(command))
        assert plan.points[0].config.architecture.name == name
        assert_builds(plan.points[0])


ABLATIONS = of_group("ablation")
SEARCHES = [name for name in ABLATIONS if name.startswith("search_")]


@pytest.mark.parametrize("name", SEARCHES)
def test_sample_points_of_search_file_are_composed_and_built(name: str) -> None:
    plan = make_plan([f"ablation={name}"])
    assert isinstance(plan.sweeper, schema.OptunaConfig)
    first = header("ablation", name)
    assert first.startswith(f"# nnopt run ablation={name}")
    assert f"({plan.sweeper.trials} trials)" in first
    assert len(plan.varied) >= 2
    for point in plan.points:
        assert point.config.name == name
        assert_builds(point)


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name not in SEARCHES])
def test_all_settings_of_ablation_are_composed_and_built(name: str) -> None:
    """The points of the first seed are composed. Those of other seeds differ only in the seed."""
    first = header("ablation", name)
    assert first.startswith(f"# nnopt run ablation={name}")
    promised = re.search(r"= (\d+) points", first)
    text = (CONF / "ablation" / f"{name}.yaml").read_text("utf-8")
    seeds = set(re.findall(r"\bseed: (range\(\d+\)|\d+(?:,\d+)+)", text))
    assert promised is not None
    assert len(seeds) == 1, "all points have the same seeds"
    count = len(make_plan([f"seed={seeds.pop()}"], multirun=True).points)
    plan = make_plan([f"ablation={name}", "seed=0"])
    assert plan.is_sweep
    assert len({point.id for point in plan.points}) == len(plan.points)
    assert plan.varied
    # Seeds in ``grids`` are not overridden by the command line.
    settings = [x for x in plan.points if x.config.seed == plan.points[0].config.seed]
    assert len(settings) * count == int(promised[1])
    for point in settings:
        assert point.config.name == name
        assert_builds(point)
