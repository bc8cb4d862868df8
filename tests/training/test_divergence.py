"""The remedies for a diverged training."""

from __future__ import annotations

import numpy as np
import pytest

from nnopt.config.compose import make_plan
from nnopt.errors import DivergedError
from nnopt.training.divergence import raise_if_diverged
from nnopt.training.length import Length
from nnopt.training.state import TrainingState

REMEDIES = {
    "only a lower rate": ([], []),
    "no clipping": (["regularizer.grad_clip=0"], ["regularizer.grad_clip=1"]),
    "clipping configured by the user": (["regularizer.grad_clip=5"], []),
    "unscaled inputs": (["dataset.normalization=none"], ["dataset.normalization=standard"]),
    "scaled inputs": (["dataset.normalization=unit"], []),
    "deep network": (["architecture=vgg"], ["regularizer.norm=batch"]),
    "deep network with norms": (["architecture=resnet", "regularizer.norm=layer"], []),
    "large first weights": (["initializer=normal"], ["initializer=he"]),
    "large last weights": (["initializer.output=uniform"], ["initializer=he"]),
    "unused spread": (
        [
            "architecture=layers",
            "architecture.layers=[{dense: classes}]",
            "initializer.hidden=normal",
        ],
        [],
    ),
    "initializer of absent layers": (["initializer.hidden=normal", "architecture.hidden=[]"], []),
    "small normal weights": (["initializer=normal", "initializer.std=0.001"], []),
    "scaled weights": (["initializer.scale=20"], ["initializer.scale=1"]),
    "small weights": (["initializer.scale=0.5"], []),
    "all": (
        ["initializer=uniform", "regularizer.grad_clip=0", "dataset.normalization=none"],
        ["regularizer.grad_clip=1", "dataset.normalization=standard", "initializer=he"],
    ),
}


class EmptyNetwork:
    def arrays(self) -> dict[str, np.ndarray]:
        return {}


@pytest.mark.parametrize(("overrides", "expected"), REMEDIES.values(), ids=REMEDIES)
def test_divergence_advice_depends_on_configuration(
    overrides: list[str], expected: list[str]
) -> None:
    config = make_plan([*overrides, "optimizer.lr=3"]).points[0].config
    training = TrainingState(EmptyNetwork(), config, Length(1, 60, 60))  # type: ignore[arg-type]
    training.diverged_at = 3
    with pytest.raises(DivergedError) as error:
        raise_if_diverged(config, training, None)
    advice = str(error.value).partition("try one of: ")[2]
    first, *others = advice.split(", ")
    assert first == "a lower optimizer.lr than 3"
    assert [remedy.split(" ")[0] for remedy in others if "=" in remedy] == expected


def test_divergence_advice_names_the_spread_of_the_initial_weights() -> None:
    config = make_plan(["initializer=normal", "initializer.std=3"]).points[0].config
    training = TrainingState(EmptyNetwork(), config, Length(1, 60, 60))  # type: ignore[arg-type]
    training.diverged_at = 3
    with pytest.raises(DivergedError, match=r"initializer=he .* 'normal' with initializer.std = 3"):
        raise_if_diverged(config, training, None)
