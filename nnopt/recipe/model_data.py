"""The samples of a dataset, as a trained network needs them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnopt.architecture.inference import format_shape
from nnopt.data.csv_text import listed
from nnopt.data.dataset import Dataset, Part
from nnopt.errors import DataError
from nnopt.recipe.trained_model import TrainedModel


def fitted_part(model: TrainedModel, dataset: Dataset, part: Part) -> Part:
    """Return a part of a dataset, with features and classes in the order of the network.

    The dataset may lack classes of the network. Raises DataError if it has other classes, or
    samples of another shape.
    """
    if dataset.input_shape != model.inputs.shape:
        raise DataError(
            f"{dataset.name} has samples of the shape {format_shape(dataset.input_shape)}, but the "
            f"model was trained on {format_shape(model.inputs.shape)}"
        )
    if unknown := [name for name in dataset.classes if name not in model.classes]:
        raise DataError(
            f"{dataset.name} has classes that the model does not know: {listed(unknown)}; its "
            f"classes are {listed(model.classes, 20)}; dataset.classes=[...] selects classes"
        )
    if dataset.classes != model.classes:
        numbers = np.array([model.classes.index(name) for name in dataset.classes])
        part = replace(part, labels=np.where(part.labels < 0, -1, numbers[part.labels]))
    if model.inputs.is_image:
        return part
    columns, wanted = dataset.features, model.inputs.columns
    if wanted and columns and columns != wanted:
        if missing := [name for name in wanted if name not in columns]:
            raise DataError(f"{dataset.name} lacks columns of the model: {listed(missing)}")
        positions = [columns.index(name) for name in wanted]
        part = replace(part, inputs=part.inputs[:, positions])
    return replace(part, inputs=part.inputs.astype(model.inputs.dtype, copy=False))
