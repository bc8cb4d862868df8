"""Torchvision's models: description of the layers, initialization from the seed, and training."""

from __future__ import annotations

import hashlib
import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torchvision import models

from nnopt.architecture.layers import BatchNorm, Conv2d, Dense, Dropout, ReLU
from nnopt.architecture.network import Architecture
from nnopt.backends import load_backend
from nnopt.backends.models import build_architecture, initial_arrays
from nnopt.backends.protocol import Network
from nnopt.backends.torch import check_backend
from nnopt.backends.torch.dropout import Dropout as DropoutModule
from nnopt.backends.torch.optimizers import build_optimizer
from nnopt.backends.torch.vision import published_weights
from nnopt.errors import ConfigError, DataError
from nnopt.schema import Config, ResnetConfig, TorchvisionConfig

MakeConfig = Callable[..., Config]
Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def described(
    config: Config, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10
) -> Architecture:
    return build_architecture(config.architecture, config.regularizer, shape, classes)


@pytest.fixture
def vision(make_config: MakeConfig) -> Callable[..., Config]:
    """Return a function that makes a configuration, such as ``vision("resnet18", seed=1)``."""

    def make(model: str, small: bool = False, pretrained: bool = False, **changes: Any) -> Config:
        architecture = TorchvisionConfig("torchvision", model, small, pretrained)
        return make_config(backend="torch", architecture=architecture, **changes)

    return make


def built(config: Config, architecture: Architecture) -> Network:
    network = load_backend("torch").build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    return network


def batch(shape: tuple[int, ...] = (3, 32, 32), count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator), torch.arange(count) % 4


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("mobilenet_v3_small", 2_542_856),
        ("squeezenet1_1", 1_235_496),
        ("vit_b_32", 88_224_232),
        ("swin_t", 28_288_354),
    ],
)
def test_counts_of_parameters_and_operations_agree_with_published_counts(
    vision: Callable[..., Config], model: str, parameters: int
) -> None:
    """A published count has only pairs of a multiplication and an addition, no other operations."""
    architecture = described(vision(model), (3, 224, 224), 1000)
    assert architecture.parameter_count == parameters
    operations = models.get_model_weights(model).DEFAULT.meta["_ops"] * 2e9
    assert operations < architecture.flops_per_sample < 1.2 * operations
    outer = {layer.name.partition(".")[0] for layer in architecture.layers}
    assert {"fc", "classifier", "heads", "head"} & outer


def test_torchvision_resnet_for_small_images_equals_nnopt_resnet(
    make_config: MakeConfig,
) -> None:
    """With the same arrays, the networks of NumPy and torchvision give equal logits."""
    norm = {"regularizer.norm": "batch", "backend.dtype": "float64"}
    own = make_config(architecture=ResnetConfig("resnet", 18, None), **norm)
    model = TorchvisionConfig("torchvision", "resnet18", True, False)
    other = make_config(backend="torch", architecture=model, **norm)
    ours, theirs = (described(config, (3, 8, 8)) for config in (own, other))
    assert ours.parameter_count == theirs.parameter_count == 11_173_962
    assert ours.flops_per_sample == theirs.flops_per_sample
    shapes = [x.parameter_shapes() | x.statistic_shapes() for x in (ours, theirs)]
    assert list(shapes[0].values()) == list(shapes[1].values())

    arrays = initial_arrays(ours, own.initializer, 0)
    networks = [load_backend(x.backend.name).build_network(y, x) for x, y in ((own, ours),)]
    networks += [load_backend("torch").build_network(theirs, other)]
    networks[0].load(arrays)
    networks[1].load(dict(zip(shapes[1], (arrays[name] for name in shapes[0]), strict=True)))
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    assert_allclose(networks[0].predict(x), networks[1].predict(torch.tensor(x)), rtol=1e-9)


def test_layer_outputs_have_the_described_shapes(vision: Callable[..., Config]) -> None:
    """Layers of kinds that nnopt also has are described by nnopt's records.

    Arrays have the names in PyTorch's state dict.
    """
    config = vision("mobilenet_v3_small")
    architecture = described(config)
    network = built(config, architecture)
    outputs = network.layer_outputs(batch()[0])
    for layer in architecture.walk():
        assert outputs[layer.name].shape[1:] == layer.output_shape, layer.name
    kinds = {type(layer.record) for layer in architecture.walk()}
    assert {Conv2d, BatchNorm, ReLU, Dense, Dropout} <= kinds
    arrays = {name: array.shape for name, array in network.arrays().items()}
    assert arrays == architecture.parameter_shapes() | architecture.statistic_shapes()
    assert set(network.gradient_arrays()) == set(architecture.parameter_shapes())


def test_parameters_outside_of_layers_have_names(vision: Callable[..., Config]) -> None:
    """The class token is a parameter of the network, outside of all layers.

    Attention is not described as a layer, because its module returns two tensors. Its arrays are
    therefore parameters of the encoder block that contains it.
    """
    architecture = described(vision("vit_b_32"))
    shapes = architecture.parameter_shapes()
    assert shapes["class_token"] == (1, 1, 768)
    block = "encoder.layers.encoder_layer_0.self_attention"
    assert shapes[f"{block}.in_proj_weight"] == (2304, 768)
    assert shapes[f"{block}.out_proj.weight"] == (768, 768)
    assert shapes["encoder.pos_embedding"] == (1, 2, 768)
    with torch.device("meta"):
        reference = models.vit_b_32(image_size=32, num_classes=10)
    assert shapes == {name: tuple(p.shape) for name, p in reference.named_parameters()}


def test_initial_weights_of_torchvision_model_depend_only_on_seed(
    vision: Callable[..., Config],
) -> None:
    """The state of PyTorch's global random generator is neither used nor changed.

    The first convolution, which nnopt replaces for small images, is initialized as in torchvision.
    """
    config = vision("resnet18", True)
    architecture = described(config)
    before = torch.default_generator.get_state()
    first, again, other = (initial_arrays(architecture, config.initializer, k) for k in (0, 0, 1))
    built(config, architecture)
    assert torch.equal(before, torch.default_generator.get_state())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["layer1.0.conv1.weight"], other["layer1.0.conv1.weight"])
    for name in ("conv1", "layer2.0.conv2", "layer4.1.conv1"):  # He et al. 2015, fan-out mode
        weight = first[f"{name}.weight"]
        scale = math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))
        assert weight.std() == pytest.approx(scale, rel=0.06)
    assert (first["bn1.running_var"] == 1).all()


@pytest.mark.parametrize(
    ("model", "stem"), [("densenet121", "features.conv0"), ("mobilenet_v2", "features.0.0")]
)
def test_small_and_grey_images_are_accepted(
    vision: Callable[..., Config], model: str, stem: str
) -> None:
    """The first convolution has one input channel. ``small_images`` keeps the image size."""
    sizes = {}
    for small in (False, True):
        layers = {x.name: x for x in described(vision(model, small), (1, 32, 32)).walk()}
        assert layers[stem].parameters["weight"][1] == 1
        sizes[small] = layers[stem].output_shape[1:]
        assert ("features.pool0" in layers) == (model == "densenet121" and not small)
    assert sizes == {False: (16, 16), True: (32, 32)}


def test_three_steps_lower_the_loss(vision: Callable[..., Config]) -> None:
    """Repeating the training gives the same bits. No step uses the global random generator."""
    config = vision("mobilenet_v3_small", optimizer="sgd")
    architecture = described(config)
    before = torch.default_generator.get_state()
    runs = []
    for _ in range(2):
        network = built(config, architecture)
        for step in range(3):
            network.train_step(*batch(), 0.05, step)
        runs.append((network.read_steps().losses, network.arrays()))
    assert torch.equal(before, torch.default_generator.get_state())
    (losses, arrays), (again, others) = runs
    assert losses[2] < losses[0]
    assert losses.tolist() == again.tolist()
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)


@pytest.mark.parametrize("input_layer", ["muon", "adam"])
def test_muon_acts_only_on_matrices_and_kernels(
    vision: Callable[..., Config], input_layer: str
) -> None:
    """A transformer's class token and position embedding have several axes but use Adam."""
    config = vision("vit_b_32", optimizer="muon", **{"optimizer.input_layer": input_layer})
    weights = described(config).weights
    with torch.device("meta"):
        named = dict(models.vit_b_32(image_size=32, num_classes=10).named_parameters())
    optimizer = build_optimizer(list(named.values()), [named[x] for x in weights], config)
    names = {id(p): name for name, p in named.items()}
    by_muon, by_adam = ({names[id(p)] for p in x["params"]} for x in optimizer.param_groups)
    assert by_muon | by_adam == set(named)
    block = "encoder.layers.encoder_layer_11"
    assert {f"{block}.self_attention.in_proj_weight", f"{block}.mlp.3.weight"} <= by_muon
    assert {"class_token", "encoder.pos_embedding", "heads.head.weight"} <= by_adam
    assert ("conv_proj.weight" in by_muon) == (input_layer == "muon")
    assert all(named[name].ndim > 1 for name in by_muon)


def test_dropout_in_models_is_dropout_of_nnopt(vision: Callable[..., Config]) -> None:
    """nnopt also replaces stochastic depth, which skips a branch for whole samples."""
    config = vision("efficientnet_b0")
    network = built(config, described(config))
    module: nn.Module = network.module  # type: ignore[attr-defined]
    dropouts = [x for x in module.modules() if isinstance(x, DropoutModule)]
    # EfficientNet-B0 has one dropout and 16 stochastic depth modules, one of them with rate 0.
    assert len(dropouts) == 16 - 1 + 1
    assert not [x for x in module.modules() if type(x).__name__ in ("StochasticDepth", "Dropout")
                and not isinstance(x, DropoutModule)]  # fmt: skip
    branch = module.get_submodule("features.7.0.stochastic_depth")
    branch.set_step(3)
    kept = branch(torch.ones(400, 2, 3, 3)).flatten(1)
    assert (kept == kept[:, :1]).all()
    assert 0 < (kept == 0).float().mean() < 0.4


# refusals -----------------------------------------------------------------------------------------

TORCHVISION = ("architecture=torchvision", "dataset=cifar10")


def test_numpy_backend_refuses_torchvision_model(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("describe", *TORCHVISION) == 2
    message = capsys.readouterr().err
    assert "architecture.name = 'torchvision' needs backend=torch" in message
    assert "backend.name = 'numpy'" in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["architecture.model=resnet81"], "no such model; did you mean 'resnet18'?"),
        (["architecture.model=fcn_resnet50"], "architecture.model = 'fcn_resnet50': torchvision"),
        (["architecture.model=xyz"], "no such model; allowed: alexnet, convnext_base"),
        (
            ["architecture.model=vgg11", "architecture.small_images=true"],
            "architecture.small_images = true adapts only models whose names begin with resnet, ",
        ),
        (["architecture.model=alexnet"], "'alexnet' cannot take images of 3x32x32: "),
        (["architecture.model=vit_b_16", "dataset=mnist"], "'vit_b_16' cannot take images of 1x28"),
        (["dataset=spiral"], "takes images (C, H, W), but the samples have the shape (2,)"),
        (["regularizer.norm=batch"], "regularizer.norm = 'batch' has no effect on architecture="),
        (["regularizer.dropout=0.1"], "regularizer.dropout = 0.1 has no effect"),
        (["initializer=glorot"], "initializer.hidden = 'glorot_normal' has no effect"),
    ],
)
def test_torchvision_model_with_impossible_configuration_is_refused(
    nnopt: Run, capsys: Captured, overrides: list[str], message: str
) -> None:
    assert nnopt("describe", *TORCHVISION, "backend=torch", *overrides) == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", " ")


def test_gradcheck_refuses_torchvision_model(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("gradcheck", *TORCHVISION, "backend=torch") == 2
    assert "architecture.name = 'torchvision'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (
            ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
            "'nnopt[torch]'",
        ),
        (RuntimeError("operator torchvision::nms does not exist"), "--force-reinstall torch tor"),
        (OSError("_C.so: undefined symbol"), "--force-reinstall torch torchvision"),
    ],
)
def test_missing_or_broken_torchvision_is_reported(
    vision: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, error: Exception, mend: str
) -> None:
    real_import = importlib.import_module

    def broken_import(name: str) -> Any:
        if name == "torchvision":
            raise error
        return real_import(name)

    monkeypatch.setattr(importlib, "import_module", broken_import)
    (problem,) = check_backend(vision("resnet18"))
    assert problem.startswith("architecture.name = 'torchvision': ")
    assert str(error) in problem
    assert f"pip install {mend}" in problem
    with pytest.raises(ConfigError, match="pip install"):
        load_backend("torch").build_network(Architecture((3, 32, 32), 10, ()), vision("resnet18"))


@pytest.mark.slow
def test_networks_of_nnopt_do_not_import_torchvision() -> None:
    code = (
        "import sys; import nnopt.backends.torch.network, nnopt.backends.torch.loader;"
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# published weights --------------------------------------------------------------------------------

SMALL_MODEL = "shufflenet_v2_x0_5"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Tensor]]:
    """Return a file of weights and its content, and let torchvision download this file."""
    with torch.random.fork_rng(devices=[]):
        state = models.get_model(SMALL_MODEL, num_classes=1000).state_dict()
    torch.save(state, tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
    path = (tmp_path / "weights").rename(tmp_path / f"weights-{digest[:8]}.pth")
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=path.as_uri()))
    monkeypatch.setattr(models, "get_model_weights", lambda name: weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return path, state


def test_published_weights_are_used_where_shapes_match(
    vision: Callable[..., Config], published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, state = published
    config = vision(SMALL_MODEL, pretrained=True)
    architecture = described(config)
    assert not (tmp_path / "home").exists()  # describing the model loads no weights
    published_weights(SMALL_MODEL, download=True)
    path.unlink()  # the cached copy remains
    arrays = initial_arrays(architecture, config.initializer, 0)
    for name, array in arrays.items():
        if name.startswith("fc."):
            assert len(array) == 10
        else:
            assert np.array_equal(array, state[name].numpy()), name


def test_missing_or_damaged_published_weights_are_refused(
    vision: Callable[..., Config], published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, _ = published
    config = vision(SMALL_MODEL, pretrained=True)
    content = path.read_bytes()
    with pytest.raises(DataError, match=r"is missing; set data\.download=true to download it"):
        initial_arrays(described(config), config.initializer, 0)
    path.unlink()
    with pytest.raises(DataError, match=r"architecture\.pretrained = true: .* is missing, and"):
        published_weights(SMALL_MODEL, download=True)
    kept = tmp_path / "home" / "hub" / "checkpoints" / path.name
    kept.write_bytes(content[:-1])
    with pytest.raises(DataError, match="is damaged: its SHA-256 is"):
        initial_arrays(described(config), config.initializer, 0)


# a whole run --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_of_torchvision_model_writes_all_files(nnopt: Run, workplace: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1024))
    header = ",".join(["label", *(f"pixel{k}" for k in range(1024))])
    lines = [",".join(map(str, [k % 2, *row])) for k, row in enumerate(pixels)]
    (workplace / "images.csv").write_text("\n".join([header, *lines]) + "\n")
    data = ("dataset=csv", "dataset.train=images.csv", "data.root=.", "backend=torch")
    model = ("architecture=torchvision", "architecture.model=squeezenet1_1", "epochs=1")
    folder = "hydra.run.dir=a"
    assert nnopt("run", *data, *model, "layer_statistics=true", folder) == 0
    names = {path.stem for path in (workplace / "a" / "plots").iterdir()}
    assert {"filters", "feature_maps", "layer_statistics", "weights", "samples"} <= names
    with np.load(workplace / "a" / "model_best.npz", allow_pickle=False) as arrays:
        assert arrays["features.0.weight"].shape == (64, 1, 3, 3)
    rows = (workplace / "a" / "layers.csv").read_text().splitlines()
    assert any(row.startswith("1,features.3.squeeze,") for row in rows)
