"""The grammar of overrides: ranges of decimal numbers, reordering, and unreadable overrides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt.config.grammar import MAX_SWEEP_POINTS, number_range
from nnopt.config.hydra import composing, parse_overrides
from nnopt.errors import ConfigError


@pytest.fixture(autouse=True)
def _own_folder(workplace: object) -> None:
    """Run every test in an empty folder, without a conf folder unless the test writes one."""


def values(word: str) -> list[Any]:
    with composing():
        (override,) = parse_overrides([word])
        if not override.is_sweep_override():
            return [override.value()]
        return [float(text) if "." in text else int(text) for text in _texts(override)]


def _texts(override: Any) -> list[str]:
    return list(override.sweep_string_iterator())


def problem(word: str) -> str:
    with composing(), pytest.raises(ConfigError) as caught:
        parse_overrides([word])
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("range(0.01,0.05,0.01)", [0.01, 0.02, 0.03, 0.04]),
        ("range(0,0.3,0.1)", [0.0, 0.1, 0.2]),
        ("range(0.1,0.5,0.1)", [0.1, 0.2, 0.3, 0.4]),
        ("range(1e-3,5e-3,1e-3)", [0.001, 0.002, 0.003, 0.004]),
        ("range(0.5,0.1,-0.1)", [0.5, 0.4, 0.3, 0.2]),
        ("range(1,0,-0.3)", [1.0, 0.7, 0.4, 0.1]),
        ("range(0,1,0.3)", [0.0, 0.3, 0.6, 0.9]),
        ("range(-0.2,0.2,0.1)", [-0.2, -0.1, 0.0, 0.1]),
        ("range(start=0.7,stop=1,step=0.1)", [0.7, 0.8, 0.9]),
        ("range(3)", [0, 1, 2]),
        ("range(5,1,-2)", [5, 3]),
        ("range(2,13,4)", [2, 6, 10]),
        ("range(9007199254740993,9007199254740995)", [9007199254740993, 9007199254740994]),
        ("range(3,0)", []),
        ("sort(range(2,13,4),reverse=true)", [10, 6, 2]),
        ("sort(range(0.5,0.1,-0.1))", [0.2, 0.3, 0.4, 0.5]),
        ("sort(choice(range(2),7,5))", [0, 1, 5, 7]),
        ("sort(3,range(2))", [0, 1, 3]),
        ("choice(range(0.1,0.4,0.1))", [0.1, 0.2, 0.3]),
        ("range(3),10", [0, 1, 2, 10]),
        ("choice(range(2),range(5,7))", [0, 1, 5, 6]),
        ("int(range(0.0,3.0))", [0, 1, 2]),
        ("float(sort(range(2,13,4),reverse=true))", [10.0, 6.0, 2.0]),
    ],
)
def test_values_of_range_have_no_rounding_errors(text: str, expected: list[float]) -> None:
    actual = values(f"seed={text}")
    assert actual == expected
    assert list(map(repr, actual)) == list(map(repr, expected))


def test_shuffle_is_deterministic() -> None:
    first = values("seed=shuffle(range(0.1,1,0.1))")
    assert sorted(first) == values("seed=range(0.1,1,0.1)")
    assert first != sorted(first)
    assert first == values("seed=shuffle(range(0.1,1,0.1))")


@given(
    start=st.integers(-500, 500),
    step=st.integers(1, 200),
    count=st.integers(0, 40),
    places=st.integers(0, 6),
)
def test_range_equals_scaled_integer_range(start: int, step: int, count: int, places: int) -> None:
    stop, unit = start + step * count, 10.0**places
    found = number_range(start / unit, stop / unit, step / unit)
    assert found.list == [(start + step * index) / unit for index in range(count)]


def test_range_that_is_too_long_is_refused_before_expansion() -> None:
    assert len(number_range(MAX_SWEEP_POINTS).list) == MAX_SWEEP_POINTS
    assert "has 100,001 values" in problem(f"seed=range({MAX_SWEEP_POINTS + 1})")
    assert "has 1,000,000,000 values" in problem("optimizer.lr=range(0,1,1e-9)")
    assert "more than 10^12 values" in problem("optimizer.lr=range(0,1e300)")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dataset.train=größe.csv", """; for texts write 'dataset.train="größe.csv"'"""),
        ("name=a=b", """; for texts write 'name="a=b"'"""),
        ("name=data(1)", """; for texts write 'name="data(1)"'"""),
        ("name=naïve,b", """; for texts write 'name="naïve","b"'"""),
        ("name=it's", "the value needs quotes"),
        ("name=a[1]", """; for texts write 'name="a[1]"'"""),
        ("epochs=[1", "brackets or quotes do not match"),
        ("name='x", "brackets or quotes do not match"),
        ("name=${seed", "an interpolation '${' has no '}'"),
        ("epochs", "write key=value"),
        ("größe=1", "write key=value"),
        ("a=" + "[" * 3000, "brackets"),
        ("seed=" + "9" * 5000, "too many digits"),
        ("architecture.hidden=[range(3)]", "cannot be part of a list"),
        ("architecture.hidden=[[1],[interval(1,3)]]", "cannot be part of a list"),
        ("a={b: range(3)}", "cannot be part of a list or a map"),
        ("seed=3,interval(0,1)", "one of several choices"),
        ("optimizer=adam,glob(s*)", "one of several choices"),
        ("seed=range(a)", "a range needs finite numbers, got 'a'"),
        ("seed=range(0,inf)", "a range needs finite numbers, got inf"),
        ("seed=range(true)", "a range needs finite numbers, got True"),
        ("seed=range(1,2,0)", "a range needs a step other than 0"),
        ("seed=sort()", "needs values to reorder"),
        ("seed=nothing(3)", "Unknown function 'nothing'"),
        ("seed=range(stop=5,step=1)", "'seed=range(stop=5,step=1)': cannot be evaluated; write ra"),
        ("seed=range()", "': cannot be evaluated; write range(STOP), range(START,STOP) or range("),
        ("seed=range(1,end=3)", "': cannot be evaluated; write range(STOP), range(START,STOP) or"),
        ("optimizer.lr=interval(0,1,2)", "': cannot be evaluated; write interval(START,END)"),
        ("optimizer.lr=tag(log)", "': cannot be evaluated; write tag(log,interval(START,END))"),
        ("seed=sort(1,a)", "'seed=sort(1,a)': cannot be evaluated; write sort(VALUE,VALUE) with"),
        ("seed=sort(true,b,1.5)", "': cannot be evaluated; write sort(VALUE,VALUE) with values"),
        ("seed=int(a)", "'seed=int(a)': cannot be evaluated; write int(NUMBER)"),
        ("seed=float(b)", "'seed=float(b)': cannot be evaluated; write float(NUMBER)"),
        ("plots=bool(maybe)", "'plots=bool(maybe)': cannot be evaluated; write bool(true)"),
        ("optimizer@schedule=adam", "leave '@...' out"),
    ],
    ids=lambda text: text[:40],
)
def test_unreadable_override_is_refused_with_explanation(word: str, expected: str) -> None:
    line = problem(word)
    assert expected in line
    assert len(line) < 500


def test_override_with_proposed_quotes_is_readable() -> None:
    import shlex

    for value in ("größe.csv", "a=b", "data(1)", 'say "x"=y', "it's=x", "back\\slash=", "👍"):
        if "; for texts write " in (line := problem(f"name={value}")):
            (word,) = shlex.split(line.partition("; for texts write ")[2])
            assert values(word) == [value]


def test_number_converted_to_text_in_override_stays_text() -> None:
    with composing():
        (override,) = parse_overrides(["name=str(range(2))"])
    assert _texts(override) == ["'0'", "'1'"]


def test_leading_plus_of_override_is_ignored() -> None:
    with composing():
        overrides = [
            o.input_line for o in parse_overrides(["+seed=1", "++optimizer=adam", "+typo=3"])
        ]
    assert overrides == ["seed=1", "optimizer=adam", "typo=3"]
