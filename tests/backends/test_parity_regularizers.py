"""Regularizers that act on a network's weights or layers: what each does, and that both backends do
the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_parity_images import CLOSE, image_batches
from test_parity_networks import BACKENDS, assert_equal_after, train

from nnopt.backends import Network
from nnopt.backends.pytorch.network import TorchNetwork

MakeNetwork = Callable[..., Network]

CONV: list[Any] = [{"conv2d": 6}, "batch_norm", "relu", "global_avg_pool", {"dense": "classes"}]
IMAGE = (3, 9, 8)


# max-norm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_max_norm_scales_down_the_units_that_exceed_it(
    make_network: MakeNetwork, backend: str, dtype: str
) -> None:
    """Every parameter after a step is the one without max-norm, or, if it is a weight whose unit
    has a larger norm, as many times smaller."""
    batches = [(x.astype(dtype), y) for x, y in image_batches()]
    options = {"backend.dtype": dtype, "regularizer.decay_all": True}
    free, limited = (
        train(
            make_network(backend, CONV, IMAGE, **options, **{"regularizer.max_norm": largest}),
            backend,
            batches,
            1,
            1.0,
        )[0]
        for largest in (0.0, 1.0)
    )
    scaled = kept = 0
    for name, array in free.items():
        if not name.endswith(("conv2d1.weight", "dense1.weight")):
            assert_array_equal(limited[name], array)
            continue
        for weight, found in zip(array, limited[name], strict=True):
            norm = np.sqrt(sum(float(w) ** 2 for w in weight.flat))
            if norm > 1:
                assert_allclose(found, weight / norm, rtol=1e-6 if dtype == "float32" else 1e-13)
                scaled += 1
            else:
                assert_array_equal(found, weight)
                kept += 1
    assert scaled
    assert kept


def test_max_norm_is_the_same_in_both(make_network: MakeNetwork) -> None:
    options = {"optimizer": "momentum", "regularizer.max_norm": 0.7, "regularizer.l2": 0.01}
    assert_equal_after(make_network, image_batches(), CONV, 20, 0.1, CLOSE, **options)


def test_max_norm_of_whole_arrays_is_seen(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_norms(self: TorchNetwork, largest: float) -> None:
        for weight in self._weights:
            weight.div_((weight.norm() / largest).clamp(min=1))

    monkeypatch.setattr(TorchNetwork, "_limit_norms", limit_norms)
    with pytest.raises(AssertionError, match="weight"):
        test_max_norm_is_the_same_in_both(make_network)
