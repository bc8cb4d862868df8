"""The points of a sweep in the modes grid, zip and one_at_a_time, and from lists of grids."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from nnopt.config.compose import Plan, make_plan
from nnopt.errors import ConfigError


@pytest.fixture(autouse=True)
def _own_folder(workplace: Path) -> None:
    """Run every test in an empty folder, without a conf folder unless the test writes one."""


def plan_of(*overrides: str) -> Plan:
    return make_plan(overrides, multirun=True)


def values(plan: Plan, *keys: str) -> list[tuple[Any, ...]]:
    """Return the values of the keys for each point."""

    def value(container: Any, key: str) -> Any:
        for name in key.split("."):
            container = container[name]
        return container["name"] if isinstance(container, dict) else container

    return [tuple(value(point.container, key) for key in keys) for point in plan.points]


def refused(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(overrides, multirun=True)
    return caught.value.problems


RATES = "optimizer.lr=0.1,0.01,0.001"
SIZES = "batch_size=32,64,16"


def test_grid_is_product_in_order_of_keys() -> None:
    expected = list(itertools.product((0.1, 0.01, 0.001), (32, 64, 16), (0, 1)))
    assert values(plan_of(RATES, SIZES, "seed=0,1"), "optimizer.lr", "batch_size", "seed") == (
        expected
    )


def test_zip_mode_varies_keys_in_parallel_for_every_seed() -> None:
    plan = plan_of("hydra.sweeper.mode=zip", "seed=range(2)", RATES, "epochs=3", SIZES)
    expected = [
        (lr, size, seed)
        for lr, size in zip((0.1, 0.01, 0.001), (32, 64, 16), strict=True)
        for seed in (0, 1)
    ]
    assert values(plan, "optimizer.lr", "batch_size", "seed") == expected
    assert plan.varied == ("seed", "optimizer.lr", "batch_size")
    assert set(values(plan, "epochs")) == {(3,)}


def test_zip_of_unequal_lengths_is_refused() -> None:
    (message,) = refused("hydra.sweeper.mode=zip", RATES, "batch_size=32,64", "seed=range(7)")
    assert message.endswith("but optimizer.lr has 3, batch_size has 2")


def test_one_at_a_time_mode_varies_single_keys_from_base() -> None:
    plan = plan_of(
        "hydra.sweeper.mode=one_at_a_time", "optimizer=momentum,sgd", SIZES, "seed=5,6", "epochs=2"
    )
    expected = [("momentum", 32), ("sgd", 32), ("momentum", 64), ("momentum", 16)]
    assert values(plan, "optimizer", "batch_size", "seed") == [
        (*pair, seed) for pair in expected for seed in (5, 6)
    ]


@pytest.mark.parametrize("mode", ["zip", "one_at_a_time"])
def test_seeds_alone_give_same_points_in_every_mode(mode: str) -> None:
    assert values(plan_of(f"hydra.sweeper.mode={mode}", "seed=3,4"), "seed") == [(3,), (4,)]


GRIDS = 'hydra.sweeper.grids=[{optimizer:"sgd,momentum"},{optimizer:adam,optimizer.lr:"1e-3,1e-4"}]'


def test_grids_are_concatenated_and_combined_with_the_command_line() -> None:
    plan = plan_of(GRIDS, "seed=0,1")
    assert values(plan, "optimizer", "optimizer.lr", "seed") == [
        *(("sgd", 0.1, 0), ("momentum", 0.01, 0), ("sgd", 0.1, 1), ("momentum", 0.01, 1)),
        *(("adam", 1e-3, 0), ("adam", 1e-4, 0), ("adam", 1e-3, 1), ("adam", 1e-4, 1)),
    ]
    assert set(plan.varied) == {"optimizer", "optimizer.lr", "seed"}


def test_group_missing_from_one_grid_gets_default_override() -> None:
    plan = plan_of("hydra.sweeper.grids=[{batch_size: 16},{regularizer: l2}]")
    assert plan.points[0].overrides == ("regularizer=none", "batch_size=16")
    assert plan.points[1].overrides == ("regularizer=l2",)


def test_repeated_points_of_overlapping_grids_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = plan_of('hydra.sweeper.grids=[{batch_size: "16,32"},{batch_size: "32,64"}]')
    assert values(plan, "batch_size") == [(16,), (32,), (64,)]
    assert "1 of 4 points repeat earlier ones and are left out" in caplog.text


def test_grids_that_override_command_line_give_warning(caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_of("batch_size=8", "hydra.sweeper.grids=[{batch_size: 16}]")
    assert values(plan, "batch_size") == [(16,)]
    assert "batch_size is overridden by hydra.sweeper.grids" in caplog.text


def test_params_on_command_line_are_merged_with_params_in_file() -> None:
    overrides = ["ablation=l2_spiral", 'hydra.sweeper.params.optimizer.lr="0.1,0.2"', "seed=0"]
    plan = plan_of(*overrides)
    assert plan.varied == ("regularizer.l2", "optimizer.lr")
    assert len(plan.points) == 8


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra.sweeper.moed=zip", "unknown key 'hydra.sweeper.moed'; did you mean 'hydra.sweep"),
        ("hydra.sweeper.mode=zpi", "hydra.sweeper.mode = 'zpi': did you mean 'zip'? allowed: grid"),
        ("hydra.sweeper.mode=zip,grid", "'hydra.sweeper.mode=zip,grid': needs one value"),
        ("hydra/sweeper=basic", "hydra/sweeper = 'basic': allowed: grid"),
        ("hydra.sweeper.grids=3", "hydra.sweeper.grids = 3: needs a list"),
        ("hydra.sweeper.grids=[3]", "hydra.sweeper.grids[0] = 3: needs a map"),
        ("hydra.sweeper.params=3", "hydra.sweeper.params = 3: needs a map"),
        ("hydra.sweeper.grids=[{optimzer: sgd}]", "unknown key 'optimzer'"),
        ("hydra.sweeper.grids=[{optimizer: adm}]", "optimizer = 'adm': did you mean 'adam'?"),
        (
            'hydra.sweeper.grids=[{optimizer: {lr: "1,2"}}]',
            "hydra.sweeper.grids[0].optimizer = {'lr': '1,2'}: needs values, not a map; write each "
            "key in full, such as optimizer.lr",
        ),
        (
            "hydra.sweeper.params={seed: 'range(5,x)'}",
            "hydra.sweeper.params.seed = 'range(5,x)': a range needs finite numbers, got 'x'",
        ),
        (
            "hydra.sweeper.grids=[{seed: 'int(a)'}]",
            "hydra.sweeper.grids[0].seed = 'int(a)': cannot be evaluated; write int(NUMBER)",
        ),
        (
            "hydra.sweeper.params={seed: '1,['}",
            "hydra.sweeper.params.seed = '1,[': cannot read it: the value needs quotes; for",
        ),
        (
            "optimizer.lr=interval(0.1,1)",
            "'optimizer.lr=interval(0.1,1)': an interval needs hydra/sweeper=optuna",
        ),
        ("seed=range(0)", "'seed=range(0)' has no value; give the key at least one"),
        ("hydra.launcher.workers=3", "unknown key 'hydra.launcher.workers'"),
    ],
)
def test_wrong_sweep_settings_are_refused_in_one_line(word: str, message: str) -> None:
    (problem,) = refused(word)
    assert problem.startswith(message)


def test_sweep_settings_of_single_run_are_refused() -> None:
    for word in ("hydra.sweeper.mode=zip", "hydra/launcher=sequential"):
        with pytest.raises(ConfigError, match="applies to a sweep; `nnopt run -m` runs one"):
            make_plan([word])


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "architecture.hidden=[5,4]", "data.root=/x", "name=${seed}_a"],
        ["architecture=layers", "architecture.layers=[{dense: 3}, relu, {dense: classes}]"],
        ["optimizer=adam", "optimizer.lr=${regularizer.l2}", "regularizer.l2=0.01"],
        ["dataset.validation={fraction: 0.3}", "regularizer.augmentation.flip=false"],
        ["experiment=mnist_conv", "epochs=3"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_values_merged_in_dicts_equal_values_merged_by_omegaconf(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnopt.config import resolve

    quick = plan_of(*overrides).points
    monkeypatch.setattr(resolve._ComposedFiles, "_affects_references", lambda self, settings: True)
    assert plan_of(*overrides).points == quick


def test_sweep_that_is_too_large_is_refused_before_expansion() -> None:
    (message,) = refused("seed=range(1000)", "epochs=range(1,1001)")
    assert message.startswith(
        "the sweep has 1,000,000 points, but a sweep has at most 100,000 points"
    )
    (message,) = refused('hydra.sweeper.grids=[{seed: "range(70000)"},{seed: "range(60000)"}]')
    assert message.startswith("the sweep has 130,000 points")


@pytest.mark.parametrize("mode", ["zip", "one_at_a_time"])
def test_limit_counts_points_of_the_mode_and_not_of_the_product(mode: str) -> None:
    overrides = ["optimizer.lr=range(1,4,0.01)", "regularizer.l2=range(0,3,0.01)"]
    sizes = {"zip": 300, "one_at_a_time": 599}
    from nnopt.config.grid import expand
    from nnopt.config.hydra import composing, parse_overrides
    from nnopt.schema import GridConfig

    with composing():
        points, _ = expand(
            GridConfig("grid", mode, {}, ()), parse_overrides([*overrides, "seed=range(100)"])
        )
    assert len(points) == sizes[mode] * 100


def test_values_of_ranges_in_params_have_no_rounding_errors() -> None:
    plan = plan_of('hydra.sweeper.params={optimizer.lr: "range(0.1,0.5,0.1)"}')
    assert values(plan, "optimizer.lr") == [(0.1,), (0.2,), (0.3,), (0.4,)]
    plan = plan_of('hydra.sweeper.grids=[{optimizer.lr: "sort(range(0.1,0.4,0.1),reverse=true)"}]')
    assert values(plan, "optimizer.lr") == [(0.3,), (0.2,), (0.1,)]


def test_value_in_params_may_be_list_of_maps(workplace: Path) -> None:
    Path("conf/ablation").mkdir(parents=True)
    Path("conf/ablation/a.yaml").write_text(
        "# @package _global_\ndefaults: [{override /architecture: layers}]\nhydra:\n"
        "  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      architecture.layers: [{dense: 4}, relu, {dense: classes}]\n      seed: 0,1\n"
    )
    plan = plan_of("ablation=a")
    assert (
        values(plan, "architecture.layers") == [([{"dense": 4}, "relu", {"dense": "classes"}],)] * 2
    )
