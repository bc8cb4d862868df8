"""The gradient check: correct gradients pass, and planted errors are detected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from nnopt.architecture import layers as records
from nnopt.architecture.initializers import initial_arrays
from nnopt.backends.numpy import modules as modules_file
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.ops import Op, new
from nnopt.backends.numpy.ops.activations import GELU, RELU, SILU, SOFTPLUS, TANH
from nnopt.backends.numpy.ops.dense import DENSE
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.gated import MISH
from nnopt.backends.numpy.ops.linear_units import PRELU
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY, FOCAL, HINGE, MSE
from nnopt.backends.numpy.ops.normalization import BATCH_NORM, LAYER_NORM
from nnopt.backends.numpy.ops.shape import ADD
from nnopt.backends.numpy.tape import Variable
from nnopt.cli import gradcheck
from nnopt.cli.main import run_verb
from nnopt.config.compose import compose_config
from nnopt.errors import TrainingError
from nnopt.recipe.prepare import prepare
from nnopt.schema import Activation
from nnopt.training import finite_differences as differences

Array = np.ndarray
SMALL = ["dataset.samples_per_class=20", "architecture.hidden=[7]"]


RESIDUAL = [
    "architecture=layers",
    "architecture.layers=[{dense: 7}, {residual: [{dense: 7}, tanh]}, {dense: classes}]",
]


def small_overrides(overrides: list[str]) -> list[str]:
    literal = "architecture=layers" in overrides
    return [
        "dataset.samples_per_class=20",
        *([] if literal else ["architecture.hidden=[7]"]),
        *overrides,
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["backend.dtype=float32"],
        ["architecture.activation=gelu", "regularizer.norm=batch", "regularizer.dropout=0.3"],
        ["architecture.activation=leaky_relu", "regularizer.norm=layer", "loss=hinge"],
        ["architecture.activation=silu", "regularizer.label_smoothing=0.1", "dataset=moons"],
        ["architecture.activation=tanh", "architecture.hidden=[]"],
        RESIDUAL,
        ["loss=mse", "regularizer.label_smoothing=0.1"],
        ["loss=focal", "focal_gamma=0.5"],
        ["loss=focal", "regularizer.label_smoothing=0.1"],
    ],
    ids=[
        *("plain", "batch norm", "layer norm, hinge", "smoothing", "linear", "residual"),
        *("mean squared error", "focal", "focal, smoothing"),
    ],
)
def test_gradcheck_of_correct_gradients_passes(overrides: list[str]) -> None:
    config = compose_config(small_overrides(overrides))
    checks = list(gradcheck.check_gradients(config, prepare(config)))
    assert checks[-1].name == "input"
    assert all(one.passed for one in checks), checks
    assert all(one.norm > 0 for one in checks), checks


@pytest.mark.parametrize("activation", get_args(Activation))
def test_gradcheck_of_every_activation_passes(activation: str) -> None:
    config = compose_config(small_overrides([f"architecture.activation={activation}"]))
    checks = list(gradcheck.check_gradients(config, prepare(config)))
    assert len(checks) == 5 + (activation == "prelu")
    assert all(one.passed and one.norm > 0 for one in checks), checks


def changed(op: Op, number: int, change: Any) -> Op:
    """Return the operation with ``change`` applied to its gradient ``number``."""

    def backward(g: Array, saved: Any, *requires_grad: Any, buffer: Any = new) -> Any:
        given = g.copy()
        gradients = list(op.backward(g, saved, *requires_grad, buffer=buffer))
        if (gradient := gradients[number]) is not None:
            gradient[...] = change(gradient.copy(), given, saved)
        return tuple(gradients)

    return op._replace(backward=backward)


def dense_without_relu(g: Array, saved: Any, *requires_grad: Any, buffer: Any = new) -> Any:
    x, weight, has_bias, _ = saved
    return DENSE.backward(g, (x, weight, has_bias, None), *requires_grad, buffer=buffer)


def relu_with_slope_one_at_zero(g: Array, saved: Any, *, buffer: Any = new) -> Any:
    """Return g for every unit, because y = max(x, 0) always fulfils y >= 0."""
    _, y = saved
    return (g * (y >= 0),)


def batch_norm_without_means(g: Array, saved: Any, *requires_grad: Any, buffer: Any = new) -> Any:
    """Return gradients that neglect the dependence of μ and σ² on x."""
    normalized, inverse_std, weight = saved[:3]
    d_weight, d_bias = (g * normalized).sum(axis=0), g.sum(axis=0)
    return g * weight * inverse_std, d_weight, d_bias


def layer_norm_without_variance(
    g: Array, saved: Any, *requires_grad: Any, buffer: Any = new
) -> Any:
    normalized, inverse_std, weight = saved[:3]
    h = g * weight
    d_x = (h - h.mean(axis=1, keepdims=True)) * inverse_std
    return d_x, (g * normalized).sum(axis=0), g.sum(axis=0)


def with_backward(op: Op, backward: Any) -> Op:
    return op._replace(backward=backward)


def flipped(x: Array, *_: Any) -> Array:
    return -x


def one_entry_off(x: Array, *_: Any) -> Array:
    x.flat[0] += 1e-4 + 1e-4 * abs(x).max()
    return x


def focal_with_gradient_of_cross_entropy(logits: Array, *, gamma: float, **options: Any) -> Any:
    _, saved = CROSS_ENTROPY.forward(logits.copy(), **options | {"buffer": new})
    return FOCAL.forward(logits, gamma=gamma, **options)[0], saved


PLANTED: dict[str, tuple[str, Op, list[str]]] = {
    "dense: bias gradient missing": ("DENSE", changed(DENSE, 2, lambda d, *_: 0 * d), []),
    "dense: weight gradient flipped": ("DENSE", changed(DENSE, 1, flipped), []),
    "dense: input gradient halved": ("DENSE", changed(DENSE, 0, lambda d, *_: d / 2), []),
    "dense: one entry of the weight": ("DENSE", changed(DENSE, 1, one_entry_off), []),
    "dense: the ReLU after it forgotten": ("DENSE", with_backward(DENSE, dense_without_relu), []),
    "relu: slope one at zero": (
        "RELU",
        with_backward(RELU, relu_with_slope_one_at_zero),
        ["regularizer.norm=batch"],  # otherwise the ReLU is fused into the dense layer
    ),
    "tanh: 1 - y instead of 1 - y²": (
        "TANH",
        changed(TANH, 0, lambda d, g, saved: g * (1 - saved[1])),
        ["architecture.activation=tanh"],
    ),
    "gelu: x φ(x) missing": (
        "GELU",
        changed(GELU, 0, lambda d, g, saved: g * saved[1][1]),
        ["architecture.activation=gelu"],
    ),
    "silu: y (1 - σ) missing": (
        "SILU",
        changed(SILU, 0, lambda d, g, saved: g * saved[1][2]),
        ["architecture.activation=silu"],
    ),
    "dropout: scale missing": (
        "DROPOUT",
        changed(DROPOUT, 0, lambda d, g, mask: g * (mask > 0)),
        ["regularizer.dropout=0.3"],
    ),
    "batch norm: means missing": (
        "BATCH_NORM",
        with_backward(BATCH_NORM, batch_norm_without_means),
        ["regularizer.norm=batch"],
    ),
    "layer norm: variance missing": (
        "LAYER_NORM",
        with_backward(LAYER_NORM, layer_norm_without_variance),
        ["regularizer.norm=layer"],
    ),
    "cross entropy: not divided by the batch": (
        "cross_entropy",
        changed(CROSS_ENTROPY, 0, lambda d, *_: d * len(d)),
        [],
    ),
    "cross entropy: smoothing forgotten": (
        "cross_entropy",
        changed(CROSS_ENTROPY, 0, lambda d, *_: d + 0.01 * (d < 0) / len(d)),
        ["regularizer.label_smoothing=0.1"],
    ),
    "hinge: the label's own gradient missing": (
        "hinge",
        changed(HINGE, 0, lambda d, *_: np.maximum(d, 0)),
        ["loss=hinge"],
    ),
    "mean squared error: factor 2 missing": (
        "mse",
        changed(MSE, 0, lambda d, *_: d / 2),
        ["loss=mse"],
    ),
    "focal: gradient of cross-entropy": (
        "focal",
        FOCAL._replace(forward=focal_with_gradient_of_cross_entropy),
        ["loss=focal"],
    ),
    "prelu: gradient of the slope averaged": (
        "PRELU",
        changed(PRELU, 1, lambda d, *_: d / 16),
        ["architecture.activation=prelu"],
    ),
    "mish: slope of the gate missing": (
        "MISH",
        changed(MISH, 0, lambda d, g, saved: g * saved[1][2]),
        ["architecture.activation=mish"],
    ),
    "softplus: slope of the tail": (
        "SOFTPLUS",
        changed(SOFTPLUS, 0, lambda d, g, saved: g * saved[1][1]),
        ["architecture.activation=softplus"],
    ),
    "add: the branch forgotten": ("ADD", changed(ADD, 1, lambda d, *_: 0 * d), RESIDUAL),
    "add: the shortcut halved": ("ADD", changed(ADD, 0, lambda d, *_: d / 2), RESIDUAL),
}

RECORDS = {
    "RELU": records.ReLU,
    "TANH": records.Tanh,
    "GELU": records.GELU,
    "SILU": records.SiLU,
    "MISH": records.Mish,
    "SOFTPLUS": records.Softplus,
}


@pytest.mark.parametrize("name", PLANTED)
def test_gradcheck_detects_planted_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    attribute, op, overrides = PLANTED[name]
    if attribute in RECORDS:
        monkeypatch.setitem(modules_file.ACTIVATIONS, RECORDS[attribute], op)
    elif attribute in modules_file.LOSSES:
        monkeypatch.setitem(modules_file.LOSSES, attribute, op)
    else:
        monkeypatch.setattr(modules_file, attribute, op)
    with pytest.raises(TrainingError, match="gradients differ from central differences") as caught:
        gradcheck.main(small_overrides(overrides))
    assert caught.value.exit_code == 5


def test_gradcheck_prints_table_and_returns_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb(["gradcheck", *SMALL]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == [
        "array",
        "dense1.weight",
        "dense1.bias",
        "dense2.weight",
        "dense2.bias",
        "input",
        "checked",
        "all",
    ]
    assert "checked 77 of 77 entries one by one, and all of them along 5 random" in captured.out
    monkeypatch.setattr(modules_file, "DENSE", changed(DENSE, 2, flipped))
    assert run_verb(["gradcheck", *SMALL]) == 5
    captured = capsys.readouterr()
    assert captured.out.count("WRONG") == 2
    assert captured.err.count("\n") == 1
    assert "for: dense1.bias, dense2.bias" in captured.err


def test_gradcheck_ignores_length_of_training() -> None:
    overrides = [
        "epochs=1",
        "max_steps=100",
        "schedule.warmup_epochs=2",
        "regularizer.swa_start=0.5",
    ]
    assert run_verb(["gradcheck", *SMALL, *overrides]) == 0


def test_gradcheck_does_not_change_data() -> None:
    config = compose_config([*SMALL, "dataset.normalization=none"])
    prepared = prepare(config)
    before = prepared.dataset.train.inputs.copy()
    assert all(one.passed for one in gradcheck.check_gradients(config, prepared))
    assert (prepared.dataset.train.inputs == before).all()


def test_gradcheck_samples_entries_of_large_arrays() -> None:
    config = compose_config(["dataset.samples_per_class=20", "architecture.hidden=[150]"])
    checks = {one.name: one for one in gradcheck.check_gradients(config, prepare(config))}
    assert checks["dense1.weight"].size == 300
    assert checks["dense1.weight"].tried == gradcheck.MAX_ENTRIES_PER_ARRAY
    assert checks["dense1.bias"].tried == 150
    assert all(one.passed for one in checks.values())


def test_gradcheck_detects_loss_gradient_for_wrong_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted gradient is that for label 0. Only samples of other classes reveal the error."""

    def forward(logits: Array, *, labels: Array, **options: Any) -> Any:
        _, saved = CROSS_ENTROPY.forward(logits, labels=np.zeros_like(labels), **options)
        return CROSS_ENTROPY.forward(logits, labels=labels)[0], saved

    op = CROSS_ENTROPY._replace(forward=forward)
    monkeypatch.setitem(modules_file.LOSSES, "cross_entropy", op)
    config = compose_config(SMALL)
    assert not all(one.passed for one in gradcheck.check_gradients(config, prepare(config)))


def images(folder: Path, side: int, channels: int = 3) -> list[str]:
    """Write 20 random images of 10 classes and return the overrides that select them."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, channels * side * side))
    lines = [f"{i % 10}," + ",".join(map(str, row)) for i, row in enumerate(pixels)]
    header = ",".join(["label", *(f"pixel{j}" for j in range(pixels.shape[1]))])
    (folder / "images.csv").write_text("\n".join([header, *lines]) + "\n", "utf-8")
    shape = f"dataset.shape=[{channels},{side},{side}]"
    return ["dataset=csv", f"data.root={folder}", "dataset.train=images.csv", shape]


class Passes:
    """A counter of the forward passes of all networks of the NumPy backend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        forward = NumpyNetwork.forward

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return forward(*arguments, **options)

        monkeypatch.setattr(NumpyNetwork, "forward", counted)


DEEP = {
    "vgg": ["architecture.widths=[2,3,4]", "architecture.hidden=0"],
    "resnet": ["architecture.width=2"],
}


@pytest.mark.parametrize("name", DEEP)
def test_gradcheck_of_large_network_stays_within_budget(tmp_path: Path, name: str) -> None:
    """The check uses as many entries per array as the budget of comparisons allows."""
    overrides = [*images(tmp_path, 32), f"architecture={name}", "regularizer.norm=batch"]
    sizes = gradcheck.array_sizes(prepare(compose_config(overrides)))
    most = gradcheck.entries_each(list(sizes.values()))
    tried = sum(min(size, most) for size in sizes.values())
    assert 16 <= most < gradcheck.MAX_ENTRIES_PER_ARRAY
    assert tried + gradcheck.DIRECTIONS_PER_ARRAY * len(sizes) <= gradcheck.MAX_COMPARISONS
    one_more = sum(min(size, most + 1) for size in sizes.values())
    assert one_more + gradcheck.DIRECTIONS_PER_ARRAY * len(sizes) > gradcheck.MAX_COMPARISONS


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_gradcheck_comparison_takes_about_two_forward_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """A finite difference needs two forward passes, and more near a kink."""
    monkeypatch.setattr(gradcheck, "MAX_COMPARISONS", 400)
    overrides = [
        *images(tmp_path, 8),
        f"architecture={name}",
        "regularizer.norm=batch",
        *DEEP[name],
    ]
    config = compose_config(overrides)
    prepared = prepare(config)
    passes = Passes(monkeypatch)
    checks = list(gradcheck.check_gradients(config, prepared))
    assert all(check.passed for check in checks), checks
    compared = sum(check.tried + gradcheck.DIRECTIONS_PER_ARRAY for check in checks)
    assert 350 < compared <= 400
    assert 2 * compared <= passes.count <= 3 * compared


def test_gradcheck_of_wrong_gradient_takes_fewer_than_three_passes_per_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a wrong entry, the other entries of the array are checked with only one step size h."""
    monkeypatch.setattr(modules_file, "DENSE", changed(DENSE, 1, flipped))
    config = compose_config(["dataset.samples_per_class=20", "architecture.hidden=[150]"])
    prepared = prepare(config)
    passes = Passes(monkeypatch)
    checks = list(gradcheck.check_gradients(config, prepared))
    wrong = [check for check in checks if not check.passed]
    assert [check.name for check in wrong] == ["dense1.weight", "dense2.weight"]
    assert all(check.entry_error > 0.9 and check.direction_error > 0.9 for check in wrong)
    assert passes.count < 3 * sum(check.tried + gradcheck.DIRECTIONS_PER_ARRAY for check in checks)


def test_wrong_entry_that_is_not_sampled_is_detected_along_random_directions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(modules_file, "DENSE", changed(DENSE, 1, one_entry_off))
    overrides = [*images(tmp_path, 8), "architecture.hidden=[300]", "architecture.activation=tanh"]
    config = compose_config(overrides)
    checks = gradcheck.check_gradients(config, prepare(config), entries=2)
    large = next(check for check in checks if check.name == "dense1.weight")
    assert (large.size, large.tried) == (3 * 8 * 8 * 300, 2)
    assert large.entry_error <= differences.TOLERANCE
    assert large.direction_error > differences.TOLERANCE
    assert not large.passed


def test_gradcheck_with_nan_error_does_not_pass() -> None:
    for errors in ((np.nan, 0.0), (0.0, np.nan)):
        assert not gradcheck.Check("dense1.weight", 1, 1, 1.0, *errors).passed


@pytest.mark.parametrize("side", [1, -1])
def test_gradcheck_accepts_gradient_near_kink(side: int) -> None:
    """sin w + 0.1 |w - side · 1e-9| has the slope 1 - 0.1 · side at 0 and a kink nearby."""
    w = np.zeros(1)

    def loss() -> float:
        return float(np.sin(w[0]) + 0.1 * abs(w[0] - side * 1e-9))

    def error(slope: float) -> float:
        return differences.relative_error([w.fill], np.array([slope]), loss, lambda: None)

    assert error(1 - 0.1 * side) <= differences.TOLERANCE
    assert error(1 + 0.1 * side) > differences.TOLERANCE
    assert error(1 - 0.101 * side) > differences.TOLERANCE


@pytest.mark.parametrize("name", DEEP)
def test_forward_pass_from_any_layer_gives_same_loss(tmp_path: Path, name: str) -> None:
    overrides = [
        *images(tmp_path, 8),
        f"architecture={name}",
        "regularizer.norm=batch",
        *DEEP[name],
    ]
    overrides += ["regularizer.dropout=0.2", "backend.dtype=float64"]
    config = compose_config(overrides)
    architecture = prepare(config).architecture
    network = NumpyNetwork(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    x, y = np.random.default_rng(1).standard_normal((4, 3, 8, 8)), np.arange(4)
    whole = float(network.forward(Variable(x), y, 3)[1].value)
    inputs = network.layer_inputs(x, 3)
    assert [given.shape[1:] for given in inputs] == [
        layer.input_shape for layer in architecture.layers
    ]
    for first, given in enumerate(inputs):
        again = network.forward(Variable(given), y, 3, first)[1].value
        np.testing.assert_allclose(again, whole, rtol=1e-12, err_msg=str(first))


def test_gradcheck_prints_each_row_as_soon_as_it_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows are flushed at once, even if stdout is a file or a pipe."""
    output, seen = tmp_path / "told", []
    check_gradients = gradcheck.check_gradients

    def watched(*arguments: Any) -> Any:
        for check in check_gradients(*arguments):
            seen.append(output.read_text("utf-8").count("\n"))
            yield check

    monkeypatch.setattr(gradcheck, "check_gradients", watched)
    with output.open("w", encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert run_verb(["gradcheck", *SMALL]) == 0
    assert seen == [1, 2, 3, 4, 5]
    columns = [
        line.index("  ok") for line in output.read_text("utf-8").splitlines() if "ok" in line
    ]
    assert len(columns) == 5
    assert len(set(columns)) == 1


def test_entries_option_sets_number_of_checked_entries(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(["gradcheck", "--entries", "4", *SMALL]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[2] for row in rows[1:6]] == ["4", "4", "4", "3", "4"]


@pytest.mark.parametrize("word", ["0", "-1", "many", "1.5"])
def test_invalid_entries_option_is_refused(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run_verb(["gradcheck", f"--entries={word}", *SMALL]) == 2
    assert f"argument --entries: {word!r}: needs a whole number" in capsys.readouterr().err


def test_gradcheck_of_images_with_constant_background_passes(tmp_path: Path) -> None:
    """Constant pixels tie in every pooling window. At ties, the loss has no derivative."""
    lines = [f"{i % 2}," + ",".join("9" if j == i else "0" for j in range(36)) for i in range(20)]
    header = ",".join(["label", *(f"pixel{j}" for j in range(36))])
    (tmp_path / "dots.csv").write_text("\n".join([header, *lines]) + "\n", "utf-8")
    layers = "[{conv2d: 4}, relu, max_pool2d, flatten, {dense: classes}]"
    config = compose_config(
        [
            "dataset=csv",
            f"data.root={tmp_path}",
            "dataset.train=dots.csv",
            "dataset.shape=[1,6,6]",
            "architecture=layers",
            f"architecture.layers={layers}",
        ]
    )
    checks = list(gradcheck.check_gradients(config, prepare(config)))
    assert [check.name for check in checks] == [
        *("conv2d1.weight", "conv2d1.bias", "dense1.weight", "dense1.bias", "input")
    ]
    assert all(check.passed for check in checks), checks


BLOCK = "{residual: [{dense: 6}, tanh]}"
SKIPPING = [
    "architecture=layers",
    f"architecture.layers=[flatten, {{dense: 6}}, {BLOCK}, {BLOCK}, {{dense: classes}}]",
    "regularizer.stochastic_depth=0.7",
    "seed=0",  # with this seed, both samples skip the second block in the first step
]


def test_gradcheck_reaches_every_residual_branch(tmp_path: Path) -> None:
    config = compose_config([*images(tmp_path, 4, 1), *SKIPPING])
    checks = list(gradcheck.check_gradients(config, prepare(config)))
    assert all(check.passed and check.norm > 0 for check in checks), checks


def test_skipped_branch_is_reported_as_not_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If no sample uses a branch, the check of its gradients neither passes nor fails."""
    monkeypatch.setattr(gradcheck, "MASK_STEPS", 1)
    assert run_verb(["gradcheck", *images(tmp_path, 4, 1), *SKIPPING]) == 0
    stdout = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in stdout.splitlines()[1:-3])
    missed = [name for name, rest in rows.items() if rest.endswith("not reached")]
    assert missed == ["residual2.dense1.weight", "residual2.dense1.bias"]
    assert "7 of 9 gradients agree" in stdout
    assert f"does not depend on them: {', '.join(missed)}" in stdout


def test_dropped_units_are_reported_as_not_reached() -> None:
    config = compose_config([*SMALL, "regularizer.dropout=0.9999"])
    checks = {one.name: one for one in gradcheck.check_gradients(config, prepare(config))}
    verdicts = {name: check.verdict for name, check in checks.items()}
    assert verdicts.pop("dense2.bias") == "ok"
    assert set(verdicts.values()) == {"not reached"}


def test_missing_gradient_is_reported_as_wrong() -> None:
    assert gradcheck.Check("dense1.weight", 1, 1, 0.0, 1.0, 1.0).verdict == "WRONG"
    assert gradcheck.Check("dense1.weight", 1, 1, 0.0, np.nan, 0.0).verdict == "WRONG"


@pytest.mark.parametrize("optimizer", ["lion", "muon", "schedule_free_sgd"])
def test_gradcheck_ignores_backend_and_optimizer(optimizer: str) -> None:
    """The NumPy backend does not have these optimizers."""
    config = compose_config([*SMALL, "backend=torch", f"optimizer={optimizer}"])
    assert all(one.passed for one in gradcheck.check_gradients(config, prepare(config)))


# published datasets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "overrides"),
    [
        ("mnist", ["architecture.hidden=[5]"]),
        ("fashion_mnist", ["dataset.classes=[Bag,Coat,Dress]", "dataset.normalization=standard"]),
        ("cifar10", ["architecture.hidden=[4]", "dataset.subset=3000"]),
        ("cinic10", ["architecture.hidden=[4]", "dataset.validation.source=own"]),
    ],
)
def test_gradcheck_of_published_dataset_needs_no_files(
    nnopt: Callable[..., int],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    overrides: list[str],
) -> None:
    assert nnopt("gradcheck", f"dataset={dataset}", *overrides, "--entries=20") == 0
    output = capsys.readouterr().out
    inputs = {"mnist": 784, "fashion_mnist": 784}.get(dataset, 3072)
    (row,) = [line.split() for line in output.splitlines() if line.startswith("input")]
    assert row[1] == f"{2 * inputs:,}"
    assert "agree with central differences" in output
    assert list(workplace.iterdir()) == []


def test_random_images_of_gradcheck_have_the_configured_normalization_and_classes() -> None:
    config = compose_config(
        ["dataset=cifar10", "dataset.classes=[cat,dog]", "dataset.normalization=standard"]
    )
    prepared = gradcheck.prepare_check(config)
    images = prepared.dataset.train
    assert prepared.dataset.input_shape == (3, 32, 32)
    assert prepared.architecture.layers[-1].output_shape == (2,)
    assert set(images.labels.tolist()) == {0, 1}
    scale = prepared.dataset.normalization.scale.reshape(-1, 1, 1)
    shift = prepared.dataset.normalization.shift.reshape(-1, 1, 1)
    normalized = images.inputs * scale + shift
    np.testing.assert_allclose(normalized.mean(axis=(0, 2, 3)), 0, atol=1e-9)
    np.testing.assert_allclose(normalized.std(axis=(0, 2, 3)), 1, atol=1e-9)
    other = gradcheck.prepare_check(compose_config(["dataset=cifar10", "seed=1"]))
    assert (other.dataset.train.inputs != images.inputs).any()


def test_gradcheck_detects_planted_error_with_random_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(modules_file, "DENSE", changed(DENSE, 2, flipped))
    with pytest.raises(TrainingError, match=r"for: dense1\.bias, dense2\.bias"):
        gradcheck.main(["dataset=mnist", "architecture.hidden=[3]", "--entries=5"])


def test_gradcheck_of_absent_csv_file_is_refused(nnopt: Callable[..., int]) -> None:
    assert nnopt("gradcheck", "dataset=csv", "dataset.train=absent.csv") == 3


def test_gradcheck_of_a_single_class_does_not_report_agreement(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss of a single class is always 0."""
    rows = [f"{x % 3},{x % 5},same" for x in range(20)]
    (workplace / "t.csv").write_text("\n".join(["a,b,label", *rows]))
    assert run_verb(["gradcheck", "dataset=csv", "dataset.train=t.csv"]) == 0
    output = capsys.readouterr().out
    assert "not checked, because the loss does not depend on them: dense1.weight" in output
    assert "agree" not in output
