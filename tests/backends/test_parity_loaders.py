"""Both loaders give the same bits, crops included, of images and of features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from nnopt.backends import load_backend
from nnopt.data.batches import draw_crops, epoch_order
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import AugmentationConfig, Config


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("crop", "flip", "shape"),
    [(0, False, (3, 6, 5)), (2, True, (3, 6, 5)), (1, False, (1, 4, 4)), (0, False, (3,))],
)
def test_same_batches(
    make_config: Callable[..., Config], dtype: str, crop: int, flip: bool, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    if len(shape) == 1:
        inputs = rng.standard_normal((50, *shape)).astype(np.float32)
    else:
        inputs = rng.integers(0, 256, (50, *shape), dtype=np.uint8)
    part = Part(inputs, rng.integers(0, 4, 50), np.sort(rng.permutation(50)[:31]))
    scaling = Normalization(rng.random(shape[0]), rng.standard_normal(shape[0]))
    order, crops = epoch_order(0, 1, 31), draw_crops(0, 1, 31, crop, flip)
    changes = {
        "backend.dtype": dtype,
        "regularizer.augmentation": AugmentationConfig(crop, flip, 0, 0.0),
    }
    loader, torch_loader = (
        load_backend(name).build_loader(part, scaling, make_config(backend=name, **changes))
        for name in ("numpy", "torch")
    )
    batches = zip(
        loader.train_batches(order, 8, crops),
        torch_loader.train_batches(order, 8, crops),
        strict=True,
    )
    for (x, y), (torch_x, torch_y) in batches:
        assert x.dtype == torch_x.numpy().dtype == dtype
        assert_array_equal(torch_x, x)
        assert_array_equal(torch_y, y)
    # Each backend chooses the size of these batches; NumPy's are overwritten by the next one.
    evaluation = np.concatenate([x.copy() for x in loader.evaluation_batches()])
    assert_array_equal(torch.cat(list(torch_loader.evaluation_batches())), evaluation)
