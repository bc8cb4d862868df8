"""Fixtures that tests of several packages share."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource,
)
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, settings
from omegaconf import OmegaConf

from nnopt import schema
from nnopt.config.set_aside import Composed
from nnopt.schema import Config
from nnopt.schema.tables import COMPONENTS

# No deadline, because the time of an example depends on the machine more than on the code.
# Every run of the suite tries the same examples.
settings.register_profile(
    "nnopt", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nnopt")

OPTIMIZER_DEFAULTS: dict[str, schema.OptimizerVariant] = {
    "sgd": schema.SgdConfig("sgd", lr=0.1),
    "momentum": schema.MomentumConfig("momentum", lr=0.01, momentum=0.9),
    "nesterov": schema.MomentumConfig("nesterov", lr=0.01, momentum=0.9),
    "rmsprop": schema.RmspropConfig("rmsprop", 1e-3, 0.99, 1e-8, momentum=0.0, centered=False),
    "adagrad": schema.AdagradConfig("adagrad", lr=1e-2, epsilon=1e-10),
    "adadelta": schema.AdadeltaConfig("adadelta", lr=1.0, rho=0.9, epsilon=1e-6),
    "adam": schema.AdamConfig("adam", 1e-3, 0.9, 0.999, epsilon=1e-8, amsgrad=False),
    "adamw": schema.AdamConfig("adamw", 1e-3, 0.9, 0.999, epsilon=1e-8, amsgrad=False),
    "nadam": schema.NadamConfig("nadam", 2e-3, 0.9, 0.999, epsilon=1e-8, momentum_decay=4e-3),
    "lion": schema.LionConfig("lion", lr=3e-4, beta1=0.9, beta2=0.99),
    "muon": schema.MuonConfig("muon", 0.02, 0.95, 5, "muon", 0.015, 0.9, 0.95, 1e-10),
    "schedule_free_sgd": schema.ScheduleFreeSgdConfig("schedule_free_sgd", 1.0, 0.9),
    "schedule_free_adamw": schema.ScheduleFreeAdamwConfig(
        "schedule_free_adamw", lr=2.5e-3, beta1=0.9, beta2=0.999, epsilon=1e-8
    ),
}


def plain_config() -> Config:
    """Return a simple configuration on the spiral, built without Hydra and nnopt's YAML files."""
    return Config(
        name="test",
        seed=0,
        epochs=60,
        max_steps=None,
        max_time=None,
        batch_size=32,
        accumulation_steps=1,
        drop_last=False,
        loss="cross_entropy",
        focal_gamma=2.0,
        test_weights="best",
        plots=True,
        layer_statistics=False,
        tensorboard=False,
        progress="bar",
        dataset=schema.SpiralConfig(
            name="spiral",
            subset=None,
            normalization="none",
            validation=schema.Validation("train", 0.2),
            classes=3,
            samples_per_class=100,
            noise=0.2,
            seed=0,
        ),
        data=schema.DataConfig(root="data", cache="data/cache", download=False),
        backend=schema.NumpyConfig("numpy", "float32", "cpu", None, False, "auto"),
        architecture=schema.MlpConfig("mlp", hidden=(64,), activation="relu"),
        regularizer=schema.RegularizerConfig(
            l1=0.0,
            l2=0.0,
            weight_decay=None,
            dropout=0.0,
            stochastic_depth=0.0,
            norm="none",
            label_smoothing=0.0,
            grad_clip=0.0,
            max_norm=0.0,
            decay_norm_and_bias=False,
            ema_decay=0.0,
            swa_start=0.0,
            test_time_flip=False,
            augmentation=schema.AugmentationConfig(
                crop=0,
                flip=False,
                policy="none",
                num_ops=2,
                magnitude=9,
                cutout=0,
                mixup=0.0,
                cutmix=0.0,
            ),
        ),
        pruning=schema.NoPruningConfig("none"),
        optimizer=OPTIMIZER_DEFAULTS["momentum"],
        schedule=schema.ConstantConfig("constant", warmup_epochs=0),
        initializer=schema.InitializerConfig("he_normal", "lecun_normal", None, 1.0, 1.0, 0.0, 1.0),
        early_stopping=schema.EarlyStoppingConfig(
            None, "epochs", None, 0.0, "absolute", "accuracy"
        ),
        target=schema.TargetConfig(None, None),
        evaluation=schema.EvaluationConfig(train=True, predictions=False),
        checkpoint=schema.CheckpointConfig(interval=30.0, keep=False),
    )


def with_keys(config: Config) -> dict[str, Any]:
    """Return the configuration as a dict with the keys of YAML files: ``from`` for ``from_``."""
    return asdict(config, dict_factory=lambda items: {key.rstrip("_"): x for key, x in items})


def with_overrides(config: Config, overrides: dict[str, Any]) -> Config:
    """Return a copy of the configuration with the values of ``overrides``, whose keys are dotted.

    If the value of ``optimizer`` or ``backend`` is a name, it selects the default configuration of
    this optimizer or backend.
    """
    for key, value in overrides.items():
        group, _, inner = key.partition(".")
        if key == "optimizer" and isinstance(value, str):
            value = OPTIMIZER_DEFAULTS[value]
        elif key == "backend" and isinstance(value, str):
            value = (
                schema.TorchConfig("torch", "float32", "cpu", None, False, "full", "off", False)
                if value == "torch"
                else schema.NumpyConfig("numpy", "float32", "cpu", None, False, "auto")
            )
        elif inner:
            value = _replaced(getattr(config, group), inner, value)
        config = replace(config, **{group: value})
    return config


def _replaced(record: Any, key: str, value: Any) -> Any:
    """Return a copy of the record with a new value at a dotted key."""
    name, _, inner = key.partition(".")
    return replace(
        record, **{name: _replaced(getattr(record, name), inner, value) if inner else value}
    )


FOLDER = re.compile(r"(hydra\.(?:run|sweep)\.dir)=([A-Za-z/][\w./-]*)")
"""A pattern of overrides that set the folder of a run or sweep to a path without quotes."""


@pytest.fixture(scope="session", autouse=True)
def compose_once() -> Iterator[None]:
    """Cache the configurations composed from nnopt's own YAML files.

    Hydra needs a fifth of a second for a configuration, and the suite composes hundreds of them. A
    pickle is restored in half the time of a deep copy. The folder of a run is set after the
    composition. Configurations with a user's files or with interpolations are not cached, because
    they depend on the working directory.
    """
    from nnopt.config import hydra as hydra_config
    from nnopt.config import plugin_source
    from nnopt.config.plugin_source import default_values

    compose, kept = hydra_config.compose, {}

    def keeping(name: str, overrides: list[str], return_hydra_config: bool = False) -> Composed:
        places = GlobalHydra.instance().config_loader().get_search_path().get_path()
        is_own = not any(place.provider in ("nnopt-user", "command-line") for place in places)
        if not is_own or any("$" in word for word in overrides):
            return compose(name, overrides, return_hydra_config)
        folders = [found for word in overrides if (found := FOLDER.fullmatch(word))]
        others = [word for word in overrides if not FOLDER.fullmatch(word)]
        added = [str(default_values(*x)) for x in COMPONENTS if x[0] in plugin_source.GROUPS]
        key = (*others, return_hydra_config, *added)
        if key not in kept:
            kept[key] = pickle.dumps(compose(name, others, return_hydra_config))
        composed: Composed = pickle.loads(kept[key])
        for folder in folders:
            OmegaConf.update(composed.config, folder[1], folder[2])
        return composed

    read, files = ImportlibResourcesConfigSource._read_config, {}

    def reading(source: ImportlibResourcesConfigSource, resource: Any) -> Any:
        """Parse each YAML file of nnopt and of Hydra only once."""
        if str(resource) not in files:
            files[str(resource)] = pickle.dumps(read(source, resource))
        return pickle.loads(files[str(resource)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra_config, "compose", keeping)
        patch.setattr(ImportlibResourcesConfigSource, "_read_config", reading)
        yield


@pytest.fixture(scope="session", autouse=True)
def write_without_sync() -> Iterator[None]:
    """Disable fsync in this process.

    It takes about 4 ms for each of thousands of files, and only protects against a power failure.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """Return a function that returns ``plain_config()`` with changes, made in the given order.

    Example: ``make_config(optimizer="adam", **{"backend.dtype": "float64"})``.
    """
    return lambda **overrides: with_overrides(plain_config(), overrides)


@pytest.fixture(scope="session")
def container_of() -> Callable[[Config], dict[str, Any]]:
    """Return a function that returns a configuration with the keys and lists of YAML files."""
    return lambda config: dict(json.loads(json.dumps(with_keys(config))))


@pytest.fixture(scope="session")
def leave_run() -> Callable[..., Path]:
    """Return a function that writes the summary of a finished run and returns its folder.

    Example: ``leave_run(folder, 3, {"optimizer": "adam"}, test_accuracy=0.9)`` for seed 3.
    """

    def leave(
        folder: Path, seed: int = 0, changes: dict[str, Any] | None = None, **summary: Any
    ) -> Path:
        config = with_keys(with_overrides(plain_config(), {"seed": seed, **(changes or {})}))
        record = {
            "status": "done",
            "error": None,
            "test_accuracy": 0.5,
            "stopped_early": False,
            "best_epoch": 7,
            "seed": seed,
            "overrides": [],
            "data": {"name": config["dataset"]["name"], "sources": {}},
            "config": config,
        }
        folder.mkdir(parents=True)
        (folder / "run.log").write_text("")
        (folder / "summary.json").write_text(json.dumps(record | summary))
        return folder

    return leave


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to an empty folder and return its path.

    NNOPT_DATA_DIR is unset during the test, and the signal handlers are restored after it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNOPT_DATA_DIR", raising=False)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield tmp_path
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def nnopt(workplace: Path) -> Callable[..., int]:
    """Return a function that runs a command line in this process and returns its exit code."""
    from nnopt.cli.main import run_verb

    return lambda *arguments: run_verb(list(arguments))


@pytest.fixture
def start_nnopt(workplace: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a command line in a new process with piped output.

    Processes that still run at the end of the test are killed.
    """
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from nnopt.cli.main import main; main()", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=workplace, **pipes | options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
