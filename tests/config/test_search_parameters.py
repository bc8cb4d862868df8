"""Search parameters read from overrides in Hydra's grammar."""

from __future__ import annotations

import math

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nnopt.config.grammar import functions
from nnopt.config.search_parameters import Choice, Numbers, Parameter, read_parameter, to_override
from nnopt.errors import ConfigError
from nnopt.sweeps.search.study import suggest


def read(text: str, whole: bool = False) -> Parameter:
    (override,) = OverridesParser(functions()).parse_overrides([text])
    return read_parameter(override, whole)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k=interval(1e-4,1)", Numbers("k", 1e-4, 1.0, None, False)),
        ("k=tag(log, interval(1e-4,1))", Numbers("k", 1e-4, 1.0, None, True)),
        ("k=int(interval(1,5))", Numbers("k", 1, 5, 1, False)),
        ("k=tag(log, int(interval(1,500)))", Numbers("k", 1, 500, 1, True)),
        ("k=range(1,10)", Numbers("k", 1, 9, 1, False)),  # Hydra's ranges exclude the end
        ("k=range(10,1,-3)", Numbers("k", 4, 10, 3, False)),
        ("k=shuffle(range(1,4))", Numbers("k", 1, 3, 1, False)),
        ("k=tag(log, range(1,33))", Numbers("k", 1, 32, 1, True)),
        ("k=range(3,4)", Choice("k", ("3",))),
        ("k=sgd,adam", Choice("k", ("sgd", "adam"))),
        ("k=choice([64],[128,64])", Choice("k", ("[64]", "[128,64]"))),
        ("k=null,1,true,1", Choice("k", ("null", "1", "True"))),
        ("k='a b','c'", Choice("k", ("'a b'", "'c'"))),
    ],
)
def test_parameter_is_read_from_override(text: str, expected: Parameter) -> None:
    parameter = read(text)
    assert parameter == expected
    if isinstance(parameter, Numbers) and isinstance(expected, Numbers):
        assert type(parameter.low) is type(expected.low)


def test_float_range_includes_last_value_below_stop() -> None:
    parameter = read("k=range(0,1,0.1)")
    assert isinstance(parameter, Numbers)
    assert (parameter.low, parameter.high) == (0.0, 0.9)
    assert parameter.step == 0.1


@pytest.mark.parametrize(
    "text", ["range(0.1,0.5,0.1)", "range(0.4,0,-0.1)", "sort(range(0.1,0.5,0.1))"]
)
def test_values_of_float_range_have_no_rounding_errors(text: str) -> None:
    parameter = read(f"k={text}")
    assert parameter == Numbers("k", 0.1, 0.4, 0.1, False)
    drawn = [to_override(parameter, 0.1 + 0.1 * index) for index in range(4)]
    assert drawn == ["k=0.1", "k=0.2", "k=0.3", "k=0.4"]


def test_float_range_is_sampled_without_warning() -> None:
    """Optuna warns if the step does not divide the range, and pytest turns warnings into errors."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    parameter = read("k=range(0.1,0.5,0.1)")
    drawn = {to_override(parameter, suggest(study.ask(), parameter)) for _ in range(100)}
    assert drawn == {"k=0.1", "k=0.2", "k=0.3", "k=0.4"}


def test_range_with_uneven_steps_after_a_cast_is_choice() -> None:
    assert read("k=int(range(0,6,1.5))") == Choice("k", ("0", "1", "3", "4"))


def test_interval_of_integer_key_draws_integers() -> None:
    assert read("k=interval(16,256)", whole=True) == Numbers("k", 16, 256, 1, False)
    with pytest.raises(ConfigError, match="k needs whole numbers as ends"):
        read("k=interval(16.5,256)", whole=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k=interval(5,1)", "needs its first end below its second"),
        ("k=interval(1,1)", "needs its first end below its second"),
        ("k=interval(0,inf)", "needs two finite ends"),
        ("k=tag(log, interval(0,1))", "0 has no logarithm"),
        ("k=tag(lgo, interval(1,2))", r"unknown tag 'lgo'; a search supports tag\(log, ...\)"),
        ("k=tag(log, choice(1,2))", "needs an interval or a range"),
        ("k=tag(log, range(1,10,2))", "in steps of 1"),
        ("k=range(3,3)", "has 0 values"),
    ],
)
def test_parameter_that_is_not_searchable_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert repr(text) in str(caught.value)


def test_override_of_drawn_value_keeps_all_digits() -> None:
    parameter = read("k=interval(0,1)")
    for value in (0.1 + 0.2, 1e-300, math.pi / 1e7):
        (override,) = OverridesParser(functions()).parse_overrides([to_override(parameter, value)])
        assert override.value() == value
