"""Rules for the initial weights, early stopping, the target and the learning rate schedule.

In a message, ``nnopt.config.rules`` replaces ``{KEY}`` by ``KEY = VALUE``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import get_args

from nnopt.architecture.parse import initializer_keys
from nnopt.errors import ConfigError, Problem, refused_value
from nnopt.schema import (
    Config,
    Initializer,
    MultistepConfig,
    NoPruningConfig,
    TargetConfig,
    TorchvisionConfig,
)
from nnopt.schema.values import format_value


def milestones(config: Config) -> Iterator[str]:
    """Refuse milestones that do not increase. The message contains the value."""
    if not isinstance(config.schedule, MultistepConfig):
        return
    times = config.schedule.milestones
    if times == ():
        yield refused_value("schedule.milestones", [], "needs at least one epoch")
    if any(later <= earlier for earlier, later in pairwise(times)):
        shown = format_value(times, "{:g}".format)
        reason = "needs increasing epochs, each larger than the one before"
        message = f"schedule.milestones = {shown}: {reason}"
        yield Problem(message, "schedule.milestones", list(times))


def initializer(config: Config) -> Iterator[str]:
    """Refuse keys without effect, and bounds that do not increase."""
    chosen = config.initializer
    yield from _start_weights(config)
    try:
        drawing = initializer_keys(config.architecture)
    except ConfigError:  # reported by the rule for layers
        return
    used = {getattr(chosen, key) for key in drawing}
    named = " and ".join(f"{{initializer.{key}}}" for key in drawing)
    pruning = config.pruning
    if (
        chosen.scale != 1
        and not isinstance(pruning, NoPruningConfig)
        and pruning.from_ is not None
        and pruning.rewind != "initial"
        and pruning.control != "new_weights"
    ):
        yield (
            "{initializer.scale} has no effect with pruning.from, which starts with the weights of "
            "a run; set initializer.scale=1"
        )
    keys = (("std", 1, {"normal"}), ("low", 0, {"uniform"}), ("high", 1, {"uniform"}))
    others = {*get_args(Initializer)} - {"zeros"}
    for key, default, owners in (*keys, ("scale", 1, others)):
        if getattr(chosen, key) != default and not used & owners:
            mend = f", or initializer={min(owners)}" if len(owners) == 1 else ""
            yield (
                f"{{initializer.{key}}} has no effect on {named}; "
                f"set initializer.{key}={default}{mend}"
            )
    if chosen.low >= chosen.high and "uniform" in used:
        yield "{initializer.low} must be below {initializer.high}"


def _start_weights(config: Config) -> Iterator[str]:
    """Refuse keys that have no effect with, or without, ``initializer.from``."""
    chosen, pruning = config.initializer, config.pruning
    if chosen.from_ is None:
        for key, default in (("skip", "[]"), ("from_sha256", "null")):
            if getattr(chosen, key):
                yield (
                    f"initializer.{key} has no effect without initializer.from; set "
                    f"initializer.from=RUN, or initializer.{key}={default}"
                )
        return
    needs_new = not isinstance(pruning, NoPruningConfig) and pruning.control == "new_weights"
    if not isinstance(pruning, NoPruningConfig) and pruning.from_ is not None:
        yield (
            "initializer.from and pruning.from both select the weights with which training "
            "starts; set one of them to null"
        )
    if chosen.skip:
        return
    if chosen.scale != 1 and not needs_new:
        yield (
            "{initializer.scale} has no effect with initializer.from, which replaces all weights; "
            "set initializer.scale=1"
        )
    if chosen.input is not None:
        yield (
            "{initializer.input} has no effect with initializer.from, which replaces all weights; "
            "set initializer.input=null, or the first layer in initializer.skip"
        )
    if isinstance(config.architecture, TorchvisionConfig) and config.architecture.pretrained:
        yield (
            "{architecture.pretrained} has no effect with initializer.from, which replaces all "
            "weights; set architecture.pretrained=false"
        )


def constant_schedules(config: Config) -> Iterator[str]:
    """Refuse schedules that never change the learning rate."""
    key = {"polynomial": "final_factor", "cosine_restarts": "final_factor", "multistep": "gamma"}
    name = key.get(config.schedule.name)
    if name is not None and getattr(config.schedule, name) == 1:
        yield (
            f"{{schedule.{name}}} makes the learning rate of {{schedule.name}} constant; set a "
            "value below 1, or schedule=constant"
        )


def improvements(config: Config) -> Iterator[str]:
    """Refuse a relative ``min_delta`` without effect, and fractions of 1 and more."""
    groups = ["early_stopping", *(["schedule"] if config.schedule.name == "plateau" else [])]
    for group in groups:
        section = getattr(config, group)
        if section.min_delta_mode == "relative" and section.min_delta == 0:
            yield (
                f"{{{group}.min_delta_mode}} has no effect with {{{group}.min_delta}}; set "
                f"{group}.min_delta to a fraction, such as 0.01, or {group}.min_delta_mode=absolute"
            )
        if section.min_delta_mode == "relative" and section.min_delta >= 1:
            yield (
                f"{{{group}.min_delta}} with {{{group}.min_delta_mode}} must be below 1: it is a "
                "fraction, such as 0.01 for 1 %"
            )


def target(config: Config) -> Iterator[str]:
    """Refuse a metric without a value, and a value that the metric cannot reach."""
    metric, value = config.target.metric, config.target.value
    if metric is None:
        if value is not None:
            allowed = ", ".join(get_args(get_args(TargetConfig.__annotations__["metric"])[0]))
            yield (
                f"{{target.value}} has no effect without target.metric; set target.metric to one "
                f"of {allowed}, or target.value=null"
            )
        return
    kind = "accuracy" if metric.endswith("accuracy") else "loss"
    needed = "above 0 and at most 1" if kind == "accuracy" else "of at least 0"
    if value is None:
        yield (
            f"{{target.metric}} needs target.value, a number {needed}; set "
            f"target.value={kind.upper()}, or target.metric=null"
        )
    elif kind == "accuracy" and not 0 < value <= 1:
        hint = f"; set target.value={value / 100:g} for {value:g} %" if 1 < value <= 100 else ""
        yield f"{{target.value}} must be {needed}, because {{target.metric}} is a fraction{hint}"
    if metric.startswith("validation") and config.dataset.validation.source == "none":
        yield (
            "{target.metric} needs validation data, but {dataset.validation.source}; set "
            "dataset.validation.source=train, or target.metric=train_" + kind
        )
