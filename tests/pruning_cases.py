"""Configurations of pruning for tests of several packages, with the values of the YAML files."""

from nnopt import schema

WEIGHT_PRUNING = schema.WeightPruningConfig(
    name="magnitude",
    sparsity=0.8,
    scope="global",
    schedule="one_shot",
    start=None,
    end=None,
    interval=None,
    rounds=None,
    rewind="none",
    rewind_schedule=False,
    from_=None,
    control="none",
    first_layer=True,
    last_layer=True,
    exclude=(),
    gradient_batches=1,
)

UNIT_PRUNING = schema.UnitPruningConfig(
    name="structured",
    sparsity=0.5,
    criterion="l2",
    start=None,
    rewind="none",
    rewind_schedule=False,
    from_=None,
    control="none",
    residual=False,
    first_layer=True,
    exclude=(),
    multiple_of=1,
)
