"""docs/theory.md compared with the code.

Links have targets, commands run, and the Winograd transforms are exact in rational arithmetic.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.backends.numpy import update_rules
from nnopt.backends.numpy.ops import winograd
from nnopt.config.compose import compose_config

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "theory.md"
TEXT = PAGE.read_text("utf-8")
OPS = REPOSITORY / "nnopt" / "backends" / "numpy" / "ops"

NAMED = sorted(set(re.findall(r"\[`(\w+)`\]\(([^)#]+\.py)\)", TEXT)))
COMMANDS = re.findall(r"`nnopt (gradcheck[^`]*)`", TEXT)

Rational = np.ndarray
"""An array of Fractions."""


# links and commands -------------------------------------------------------------------------------


def names_of(path: Path) -> set[str]:
    """Return the names that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(("name", "link"), NAMED)
def test_function_linked_in_theory_exists_in_file(name: str, link: str) -> None:
    assert name in names_of((PAGE.parent / link).resolve())


def test_theory_links_every_file_of_operations() -> None:
    linked = {(PAGE.parent / link).resolve() for _, link in NAMED}
    files = {
        path
        for path in OPS.glob("*.py")
        if re.search(r"^[A-Z0-9_]+ = Op\(", path.read_text("utf-8"), re.M)
    }
    assert files
    assert files <= linked


def test_theory_links_every_reference_version() -> None:
    files = [*OPS.glob("*.py"), OPS.parent / "update_rules.py"]
    names = {name for path in files for name in names_of(path) if re.search("[^_]+_naive", name)}
    assert len(names) > 30
    assert names <= {name for name, _ in NAMED}


def test_theory_explains_every_optimizer() -> None:
    rows = re.findall(r"^\| `(\w+)`: .*leftarrow|^\| (adamw) ", TEXT, re.M)
    assert {name or other for name, other in rows} == set(update_rules.OPTIMIZERS)


def test_theory_sections_are_in_contents_and_have_a_check() -> None:
    sections = re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", TEXT, re.M)
    anchors = re.findall(r"\]\(#([\w-]+)\)", TEXT)
    assert anchors == [
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title, _ in sections
    ]
    for title, body in sections:
        last = body.strip().rpartition("\n\n")[2]
        assert title == "Literature" or last.startswith("**Check it.**"), title


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_theory_commands_are_valid(command: str) -> None:
    verb, *arguments = shlex.split(command)
    assert verb == "gradcheck"
    assert compose_config(arguments).backend.name == "numpy"


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({x for x in COMMANDS if "dataset=" not in x}))
def test_theory_commands_on_generated_data_succeed(nnopt: Callable[..., int], command: str) -> None:
    assert nnopt(*shlex.split(command)) == 0


# Winograd's transforms ----------------------------------------------------------------------------


def matrix(name: str) -> Rational:
    """Return the matrix with this name in docs/theory.md."""
    (body,) = re.findall(
        re.escape(name) + r" = \\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", TEXT, re.S
    )
    return np.array(
        [[Fraction(x) for x in row.split("&")] for row in body.replace(" ", "").split(r"\\")]
    )


BT, G, AT = matrix(r"B^\top"), matrix("\nG"), matrix(r"A^\top")
E3, E4 = matrix("E_3"), matrix("E_4")
B, A = BT.T, AT.T
SCALE = np.array([Fraction(f) for f in re.findall(r"f = \(([-\d, ]+)\)", TEXT)[0].split(",")])
"""The factors f: row i of Bᵀ is multiplied by f_i, and row i of G is divided by f_i."""


def rationals(count: int) -> st.SearchStrategy[Rational]:
    numbers = st.fractions(-9, 9, max_denominator=7)
    return st.lists(numbers, min_size=count, max_size=count).map(lambda x: np.array(x, object))


def test_winograd_matrices_of_document_equal_code() -> None:
    for ours, theirs in ((BT, winograd.BT), (G, winograd.G), (AT, winograd.AT)):
        assert ours.shape == theirs.shape
        assert (ours.astype(float) == theirs).all()


def test_winograd_matrices_follow_from_interpolation() -> None:
    points = [Fraction(a) for a in (0, 1, -1, 2, -2)]
    for exponents, powers in ((3, E3), (4, E4)):
        assert (powers[:5] == [[a**e for e in range(exponents)] for a in points]).all()
        assert list(powers[5]) == [0] * (exponents - 1) + [1]
    assert (AT == E4.T).all()
    assert (G * SCALE[:, None] == E3).all()
    for i, point in enumerate(points):
        others = [a for a in points if a != point]
        coefficients = [round(c) for c in np.poly([int(a) for a in others])[::-1]]
        assert list(BT[i]) == [*coefficients, 0]
        assert SCALE[i] == np.prod([point - a for a in others])


@given(w=rationals(3), u=rationals(4))
@settings(max_examples=20)
def test_winograd_interpolated_products_equal_polynomial_product(w: Rational, u: Rational) -> None:
    interpolate = (BT / SCALE[:, None]).T
    actual = interpolate @ ((E3 @ w) * (E4 @ u))
    expected = [sum(w[j] * u[i - j] for j in range(3) if 0 <= i - j < 4) for i in range(6)]
    assert list(actual) == expected


@given(w=rationals(3), d=rationals(6))
@settings(max_examples=20)
def test_winograd_in_one_dimension_equals_correlation(w: Rational, d: Rational) -> None:
    assert list(AT @ ((G @ w) * (BT @ d))) == [
        sum(d[i + j] * w[j] for j in range(3)) for i in range(4)
    ]


def correlate(x: Rational, w: Rational) -> Rational:
    """Return the correlation without padding, computed by loops over the kernel."""
    height, width = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    places = product(range(w.shape[0]), range(w.shape[1]))
    return sum(w[i, j] * x[i : i + height, j : j + width] for i, j in places)  # type: ignore[return-value]


def draw(shape: tuple[int, ...], seed: int) -> Rational:
    rng = np.random.default_rng(seed)
    pairs = zip(
        rng.integers(-9, 10, np.prod(shape)), rng.integers(1, 8, np.prod(shape)), strict=True
    )
    return np.array([Fraction(int(a), int(b)) for a, b in pairs]).reshape(shape)


def tiles(across: int = 2) -> list[tuple[slice, slice]]:
    """Return the slices of the 4 x 4 tiles of a square image, ``across`` tiles per side."""
    places = product(range(across), repeat=2)
    return [(slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)) for i, j in places]


def window(tile: tuple[slice, slice]) -> tuple[slice, slice]:
    """Return the slices of the 6 x 6 input window of an output tile."""
    rows, columns = tile
    return slice(rows.start, rows.start + 6), slice(columns.start, columns.start + 6)


@pytest.mark.parametrize("seed", range(3))
def test_winograd_in_two_dimensions_equals_correlation_summed_over_channels(seed: int) -> None:
    x, w = draw((3, 10, 10), seed), draw((3, 3, 3), seed + 10)
    expected = sum(correlate(image, kernel) for image, kernel in zip(x, w, strict=True))
    actual = np.full((8, 8), Fraction(0))
    for tile in tiles():
        transformed = sum(
            (G @ kernel @ G.T) * (BT @ image[window(tile)] @ B)
            for image, kernel in zip(x, w, strict=True)
        )
        actual[tile] = AT @ transformed @ A
    assert (actual == expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_winograd_gradients_equal_correlation_gradients(seed: int) -> None:
    x, w, g = draw((10, 10), seed), draw((3, 3), seed + 10), draw((8, 8), seed + 20)
    d_u, d_x = np.full((6, 6), Fraction(0)), np.full((10, 10), Fraction(0))
    for tile in tiles():
        d_m = A @ g[tile] @ AT
        assert d_m[1, 1] == g[tile].sum()  # the gradient of the bias
        d_u += (BT @ x[window(tile)] @ B) * d_m
        d_x[window(tile)] += B @ ((G @ w @ G.T) * d_m) @ BT
    assert (G.T @ d_u @ G == correlate(x, g)).all()
    # The input gradient is a full correlation with the kernel rotated by 180°.
    full = np.full((12, 12), Fraction(0))
    full[2:10, 2:10] = g
    assert (d_x == correlate(full, w[::-1, ::-1])).all()


@pytest.mark.parametrize("seed", range(3))
def test_winograd_windows_of_output_gradient_give_input_and_kernel_gradient(seed: int) -> None:
    x, w, g = draw((10, 10), seed), draw((3, 3), seed + 10), draw((8, 8), seed + 20)
    turned = w[::-1, ::-1]
    padded, whole = np.full((14, 14), Fraction(0)), np.full((12, 12), Fraction(0))
    padded[2:10, 2:10], whole[:10, :10] = g, x  # both are padded with zeros, x to whole tiles
    d_x, d_u = np.full((12, 12), Fraction(0)), np.full((6, 6), Fraction(0))
    for tile in tiles(3):
        v = BT @ padded[window(tile)] @ B
        d_x[tile] = AT @ ((G @ turned @ G.T) * v) @ A
        d_u += v * (A @ whole[tile] @ AT)
    assert (d_x[:10, :10] == correlate(padded[:12, :12], turned)).all()
    assert ((G.T @ d_u @ G)[::-1, ::-1] == correlate(x, g)).all()
    # The sum of g · correlate(x, w) is linear in x and in w. It thus equals the sum of x · d_x and
    # the sum of w · d_w. Here, d_x and d_w are the gradients of the first sum.
    assert np.sum(g * correlate(x, w)) == np.sum(d_x[:10, :10] * x) == np.sum(correlate(x, g) * w)


def test_wrong_entry_of_winograd_matrix_is_detected() -> None:
    x, w = draw((6, 6), 0), draw((3, 3), 1)
    wrong = BT.copy()
    wrong[1, 2] = -wrong[1, 2]
    for transform, is_right in ((BT, True), (wrong, False)):
        y = AT @ ((G @ w @ G.T) * (transform @ x @ transform.T)) @ A
        assert (y == correlate(x, w)).all() == is_right
