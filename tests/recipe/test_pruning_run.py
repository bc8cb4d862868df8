"""Pruning in a run: refused configurations, results, files and the start from a trained run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt import schema
from nnopt.results.weights import read_weights

Nnopt = Callable[..., int]

QUICK = ["epochs=4", "dataset.samples_per_class=40", "plots=false", "progress=none"]
QUICK += ["architecture.hidden=[12,8]"]
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "sparsity 1": (
        ["pruning=magnitude", "pruning.sparsity=1"],
        ["pruning.sparsity = 1.0", "at least 0 and below 1"],
    ),
    "negative sparsity": (
        ["pruning=structured", "pruning.sparsity=-0.1"],
        ["pruning.sparsity = -0.1", "at least 0 and below 1"],
    ),
    "unknown layer": (
        ["pruning=magnitude", "pruning.exclude=[dens2]"],
        ["pruning.exclude contains the unknown layer 'dens2'", "did you mean 'dense2'?"],
    ),
    "an interval that never fires": (
        ["pruning=magnitude", "pruning.schedule=gradual", "pruning.interval=3"],
        ["pruning.interval = 3 epochs is longer", "set at most 1"],
    ),
    "end before start": (
        ["pruning=magnitude", "pruning.schedule=gradual", "pruning.start=3", "pruning.end=2"],
        ["pruning.end = 2 is not after pruning.start = 3"],
    ),
    "rewinding to a later epoch": (
        ["pruning=magnitude", "pruning.rewind=3"],
        ["pruning.rewind = 3 is after pruning.start = 2", "set an epoch up to 2"],
    ),
    "a repeated schedule without time": (
        ["pruning=magnitude", "pruning.rewind_schedule=true", "pruning.start=1"],
        ["so 1 epochs must follow each pruning, not 3"],
    ),
    "an output layer left out": (
        ["pruning=structured", "pruning.exclude=[dense3]"],
        ["'dense3', which has no effect", "because it returns the logits"],
    ),
    "residual layers that are missing": (
        ["pruning=structured", "pruning.residual=true"],
        ["pruning.residual = true has no effect"],
    ),
    "added units only": (
        [
            *("pruning=structured", "architecture=layers", "~architecture.hidden"),
            "architecture.layers=[{dense: 4}, {residual: [relu, {dense: 4}]}, {dense: classes}]",
        ],
        ["finds no units that can be removed", "set pruning.residual=true"],
    ),
    "a searched rate with a trained run": (
        ["pruning=magnitude", "pruning.from=a", "optimizer.lr=auto"],
        ["pruning.from starts with the weights of a run; set a number"],
    ),
    "pruning at the end": (
        ["pruning=magnitude", "pruning.start=4"],
        ["the last pruning, after 4 epochs, leaves no step of the 4 epochs"],
    ),
    "rounds of a schedule without rounds": (
        ["pruning=magnitude", "pruning.rounds=3"],
        ["pruning.rounds = 3 has no effect with pruning.schedule = 'one_shot'"],
    ),
    "an empty layer": (
        ["pruning=magnitude", "pruning.scope=layer", "pruning.sparsity=0.99"],
        ["leaves none of the 24 weights of dense1", "set at most 0.95833333"],
    ),
    "fewer weights than layers": (
        ["pruning=magnitude", "pruning.sparsity=0.99"],
        ["keeps 1 of 144 weights", "set at most 0.97916666"],
    ),
    "all layers left out": (
        [
            *("pruning=magnitude", "pruning.exclude=[dense2]"),
            *("pruning.first_layer=false", "pruning.last_layer=false"),
        ],
        ["pruning.name = 'magnitude' has no weights to prune"],
    ),
    "units of a network without hidden layers": (
        ["pruning=structured", "architecture.hidden=[]"],
        ["finds no units that can be removed", "dense1: it returns the logits"],
    ),
    "a large multiple": (
        ["pruning=structured", "pruning.multiple_of=16"],
        ["pruning.sparsity = 0.5 with pruning.multiple_of = 16 removes no unit"],
    ),
    "batch norm that is missing": (
        ["pruning=structured", "pruning.criterion=batch_norm"],
        ["needs a batch norm after dense1", "set regularizer.norm=batch"],
    ),
    "a key of another file": (
        ["pruning=structured", "pruning.scope=layer"],
        ["unknown key 'pruning.scope' here; it belongs to pruning=magnitude"],
    ),
    "a missing run": (
        ["pruning=magnitude", "pruning.from=nowhere"],
        ["pruning.from = 'nowhere' is not a folder; name the folder of a run"],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_impossible_pruning_is_refused_before_training(
    nnopt: Nnopt,
    capsys: pytest.CaptureFixture[str],
    workplace: Path,
    changes: list[str],
    expected: list[str],
) -> None:
    quick = [x for x in QUICK if "hidden" not in x or "~architecture.hidden" not in changes]
    assert nnopt("run", *quick, *[x for x in changes if x != "~architecture.hidden"]) == 2
    message = capsys.readouterr().err
    for fragment in expected:
        assert fragment in message
    assert list(workplace.iterdir()) == []


def run(nnopt: Nnopt, folder: str, *overrides: str) -> dict[str, Any]:
    """Run a configuration, and return its summary."""
    assert nnopt("run", *QUICK, f"hydra.run.dir={folder}", *overrides) == 0
    summary: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    return summary


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_results_of_weight_pruning_match_the_stored_weights(nnopt: Nnopt, backend: str) -> None:
    pruned = ["pruning=magnitude", "pruning.sparsity=0.75", f"backend={backend}"]
    summary = run(nnopt, "a", *pruned)
    results, arrays = summary["pruning"], read_weights(Path("a/model_best.npz"), 200)
    weights = {name: x for name, x in arrays.items() if name.endswith("weight")}
    total = sum(x.size for x in arrays.values())
    kept = {name: int(np.count_nonzero(x)) for name, x in weights.items()}
    size = sum(x.size for x in weights.values())
    assert sum(kept.values()) == round(0.25 * size)
    assert (results["requested"], results["sparsity"]) == (0.75, 1 - round(0.25 * size) / size)
    zeros = size - sum(kept.values())
    assert results["sparsity_of_all_parameters"] == pytest.approx(zeros / total)
    assert results["compression_ratio"] == pytest.approx(total / (total - zeros))
    assert results["flops_before"] == summary["flops_per_sample"]
    assert results["flops_before"] - results["flops_after"] == 2 * zeros
    assert results["kept_by_layer"] == {
        name.removesuffix(".weight"): kept[name] / weights[name].size for name in weights
    }
    (pruning,) = results["prunings"]
    rows = Path("a/metrics.csv").read_text().splitlines()[1:]
    assert pruning["step"] == int(rows[1].split(",")[1])
    assert pruning["accuracy_before"] == float(rows[1].split(",")[6])
    assert [float(row.split(",")[-1]) for row in rows] == [0, 0, *2 * [results["sparsity"]]]
    assert results["validation_accuracy"] == {
        "before": pruning["accuracy_before"],
        "pruned": pruning["accuracy_after"],
        "retrained": summary["best_validation_accuracy"],
    }
    assert summary["best_epoch"] > 2
    with np.load("a/masks.npz") as masks:
        for name, weight in weights.items():
            shape = masks[f"{name}.shape"]
            bits = np.unpackbits(masks[name], count=math.prod(shape)).reshape(shape)
            assert_array_equal(bits, weight != 0)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["magnitude", "structured"])
def test_sparsity_zero_gives_the_weights_of_a_dense_network(
    nnopt: Nnopt, backend: str, name: str
) -> None:
    common = ["optimizer=adam", f"backend={backend}"]
    summary = run(nnopt, "a", f"pruning={name}", "pruning.sparsity=0", *common)
    plain = run(nnopt, "b", *common)
    assert (summary["sparsity"], summary["compression_ratio"]) == (0, 1)
    assert summary["pruning"]["theoretical_speedup"] == 1
    assert summary["measured_step_speedup"] is None
    assert plain["pruning"] is None
    assert plain["compression_ratio"] is None
    dense, other = (read_weights(Path(x, "model_last.npz"), 200) for x in "ab")
    for key, array in dense.items():
        assert_array_equal(array, other[key])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_removal_of_units_writes_a_network_that_can_be_used(
    nnopt: Nnopt, workplace: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    summary = run(nnopt, "a", "pruning=structured", f"backend={backend}")
    parameters = 2 * 6 + 6 + 6 * 4 + 4 + 4 * 3 + 3
    assert summary["parameters"] == parameters
    arrays = read_weights(Path("a/model_best.npz"), parameters)
    assert sum(x.size for x in arrays.values()) == parameters
    for row, size in zip(summary["pruning"]["speed"], (1, 1024), strict=True):
        assert row["batch_size"] == size
        assert row["threads"] == summary["threads"]["used"]
        for name in ("step", "predict"):
            before, after = row[f"{name}_seconds_before"], row[f"{name}_seconds_after"]
            assert row[f"{name}_speedup"] == before / after > 0
    assert summary["measured_step_speedup"] == row["step_speedup"]

    (workplace / "conf" / "architecture").mkdir(parents=True)
    Path("a/architecture.yaml").rename(workplace / "conf" / "architecture" / "small.yaml")
    capsys.readouterr()
    overrides = [x for x in QUICK if "hidden" not in x]
    assert nnopt("describe", *overrides, "architecture=small") == 0
    assert f"{parameters}" in capsys.readouterr().out
    assert nnopt("gradcheck", *overrides, "architecture=small") == 0
    assert nnopt("run", *overrides, "architecture=small", "hydra.run.dir=b") == 0
    assert json.loads(Path("b/summary.json").read_text())["parameters"] == parameters


def test_diff_compares_dense_and_pruned_runs(
    nnopt: Nnopt, capsys: pytest.CaptureFixture[str]
) -> None:
    run(nnopt, "a")
    run(nnopt, "b", "pruning=magnitude")
    run(nnopt, "c", "pruning=structured")
    capsys.readouterr()
    assert nnopt("diff", "a", "b") == 0
    assert "pruning.sparsity" in capsys.readouterr().out
    assert nnopt("diff", "b", "c") == 0
    assert "pruning" in capsys.readouterr().out


def test_training_from_a_run_starts_with_its_best_weights(nnopt: Nnopt) -> None:
    """The initial weights are still those of the seed: rewinding returns to them."""
    trained = run(nnopt, "a")
    pruned = ["pruning=magnitude", "pruning.from=a", "epochs=1"]
    summary = run(nnopt, "b", *pruned)
    (pruning,) = summary["pruning"]["prunings"]
    assert (pruning["step"], pruning["accuracy_before"]) == (0, trained["best_validation_accuracy"])
    best = read_weights(Path("a/model_best.npz"), 200)
    kept = read_weights(Path("b/model_last.npz"), 200)["dense2.weight"] != 0
    largest = np.abs(best["dense2.weight"])
    assert largest[kept].min() > largest[~kept].max()

    run(nnopt, "c", *pruned, "pruning.rewind=initial", "optimizer.lr=1e-30")
    run(nnopt, "d", "optimizer.lr=1e-30", "epochs=1")
    rewound = read_weights(Path("c/model_last.npz"), 200)["dense1.weight"]
    initial = read_weights(Path("d/model_last.npz"), 200)["dense1.weight"]
    assert_allclose(rewound[rewound != 0], initial[rewound != 0], rtol=1e-6)


@pytest.mark.parametrize(("lr", "status"), [("1e30", "diverged"), ("0.01", "interrupted")])
def test_training_from_an_unfinished_run_is_refused(
    nnopt: Nnopt, capsys: pytest.CaptureFixture[str], lr: str, status: str
) -> None:
    assert nnopt("run", *QUICK, f"optimizer.lr={lr}", "hydra.run.dir=a") == (
        5 if lr == "1e30" else 0
    )
    if status == "interrupted":
        path = Path("a/summary.json")
        values = json.loads(path.read_text()) | {"status": status}
        values.pop("sha256")
        path.write_text(json.dumps(values))
    capsys.readouterr()
    assert nnopt("run", *QUICK, "pruning=magnitude", "pruning.from=a") == 2
    assert f"its status is '{status}'" in capsys.readouterr().err


def test_training_from_a_run_with_another_network_is_refused(
    nnopt: Nnopt, capsys: pytest.CaptureFixture[str]
) -> None:
    run(nnopt, "a")
    changes = ["architecture.hidden=[12,9]", "pruning=magnitude", "pruning.from=a"]
    assert nnopt("run", *QUICK, *changes) == 2
    expected = "pruning.from = 'a' has another network: dense2.weight is (8, 12), expected (9, 12)"
    assert expected in capsys.readouterr().err


def test_run_that_started_from_another_run_is_resumed_without_it(nnopt: Nnopt) -> None:
    run(nnopt, "a")
    whole = run(nnopt, "b", "pruning=magnitude", "pruning.from=a")
    changes = ["pruning=magnitude", "pruning.from=a", "max_time=1e-9", "checkpoint.interval=0"]
    assert nnopt("run", *QUICK, *changes, "hydra.run.dir=c") == 5
    Path("a").rename("moved")
    assert nnopt("resume", "c", "max_time=null") == 0
    resumed = json.loads(Path("c/summary.json").read_text())
    assert resumed["test_loss"] == whole["test_loss"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (["pruning.start=2"], 0),
        (["pruning.start=1", "pruning.schedule=iterative", "pruning.rounds=3"], 0),
        (["pruning.start=1", "pruning.schedule=iterative"], 4),
        ([], 4),
    ],
    ids=["one-shot", "rounds", "as many rounds as fit", "half of the epochs"],
)
def test_pruned_run_is_trained_longer_only_with_the_same_prunings(
    nnopt: Nnopt, capsys: pytest.CaptureFixture[str], changes: list[str], code: int
) -> None:
    """The longer training must equal a training that had this length from the start."""
    pruned = ["pruning=magnitude", *changes, "checkpoint.keep=true"]
    run(nnopt, "a", *pruned)
    assert nnopt("resume", "a", "epochs=6") == code
    if code:
        assert "the network is pruned after step" in capsys.readouterr().err
        return
    run(nnopt, "b", *pruned, "epochs=6")
    for name in ("model_best.npz", "model_last.npz", "masks.npz"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()


def test_repeated_schedule_has_equal_learning_rates_in_all_phases(nnopt: Nnopt) -> None:
    """With a rewinding to epoch 2, later phases repeat epochs 3 and 4."""
    cosine = ["epochs=8", "schedule=cosine", "pruning=magnitude", "pruning.start=4"]
    cosine += ["pruning.schedule=iterative", "pruning.interval=2", "pruning.rewind=2"]
    run(nnopt, "a", *cosine, "pruning.rewind_schedule=true")
    run(nnopt, "b", "schedule=cosine")
    repeated, plain = (
        [float(row.split(",")[2]) for row in Path(x, "metrics.csv").read_text().split()[1:]]
        for x in "ab"
    )
    assert repeated == [*plain, *plain[2:], *plain[2:]]


def test_average_after_rewinding_follows_the_weights(nnopt: Nnopt) -> None:
    """Both phases start with the same weights, so their averages are equally accurate."""
    overrides = ["epochs=8", "pruning=magnitude", "pruning.sparsity=0", "pruning.rewind=initial"]
    overrides += ["regularizer.ema_decay=0.999", "optimizer=adam", "optimizer.lr=0.01"]
    run(nnopt, "a", *overrides, "seed=3")
    losses = [float(r.split(",")[5]) for r in Path("a/metrics.csv").read_text().split()[1:]]
    assert_allclose(losses[4:], losses[:4], rtol=0.1)


def test_plateau_compares_only_epochs_after_a_pruning(nnopt: Nnopt) -> None:
    """The best loss before the pruning is lower than most losses after it."""
    overrides = ["epochs=12", "dataset.samples_per_class=100", "pruning=magnitude"]
    overrides += ["pruning.sparsity=0.9", "pruning.start=6", "schedule=plateau"]
    overrides += ["schedule.patience=2", "early_stopping.monitor=loss", "optimizer=adam"]
    run(nnopt, "a", *overrides, "optimizer.lr=0.02", "pruning.first_layer=false")
    rows = [r.split(",") for r in Path("a/metrics.csv").read_text().split()[1:]]
    losses, rates = [float(r[5]) for r in rows], [float(r[2]) for r in rows]
    best, waited, factor = math.inf, 0, 1.0
    for index, loss in enumerate(losses):
        if index == 6:
            best, waited = math.inf, 0
        assert rates[index] == pytest.approx(0.02 * factor)
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited > 2:
            factor, waited = factor * 0.5, 0


def test_flops_of_torchvision_networks_count_positions_or_are_unknown() -> None:
    from nnopt.backends.torch.vision import describe_model
    from nnopt.recipe.pruning import _flops_without

    for name, is_known in (("convnext_tiny", True), ("vit_b_32", False)):
        config = schema.TorchvisionConfig("torchvision", name, False, False)
        architecture = describe_model(config, (3, 32, 32), 10)
        shapes = architecture.parameter_shapes()
        half = {x.removesuffix(".weight"): math.prod(shapes[x]) // 2 for x in architecture.weights}
        remaining = _flops_without(half, architecture)
        if is_known:
            assert remaining is not None
            assert 0.45 < remaining / architecture.flops_per_sample < 0.55
        else:
            assert remaining is None


def test_gradual_schedule_is_evaluated_before_and_after_all_prunings(nnopt: Nnopt) -> None:
    gradual = ["pruning=magnitude", "pruning.schedule=gradual", "pruning.start=1"]
    results = run(nnopt, "a", *gradual)["pruning"]
    first, *middle, last = results["prunings"]
    assert len(middle) > 3
    assert (first["accuracy_after"], last["accuracy_before"]) == (None, None)
    assert all(x["accuracy_before"] is x["accuracy_after"] is None for x in middle)
    assert results["validation_accuracy"]["before"] == first["accuracy_before"] is not None
    assert results["validation_accuracy"]["pruned"] == last["accuracy_after"] is not None


def test_layer_without_weights_is_reported_by_name(
    nnopt: Nnopt, capsys: pytest.CaptureFixture[str]
) -> None:
    """With this seed, none of the 3 weights that are kept is in dense2, which has 90 of 150."""
    layers = "architecture.layers=[{dense: 30}, relu, {dense: 3}, relu, {dense: classes}]"
    overrides = ["architecture=layers", layers, "pruning=random", "pruning.sparsity=0.98"]
    overrides += ["pruning.last_layer=false", "pruning.start=1", "seed=1"]
    assert nnopt("run", *[x for x in QUICK if "hidden" not in x], *overrides) == 0
    output = capsys.readouterr()
    assert "pruning left no weight of dense2" in output.out + output.err
