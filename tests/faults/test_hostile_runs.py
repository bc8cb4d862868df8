"""Folders of runs from a hostile sender, and the commands that read the folders.

Each test case is a ``Build``, a function that changes one file of a finished run. Helpers such as
``link`` return a ``Build``. ``nnopt compare``, ``report`` and ``diff`` either leave the file out or
refuse it and name it. They never hang, show a private file, or use more memory than for a file of
normal size.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Attempt, Command

from nnopt.cli.main import run_verb
from nnopt.results.summary import values_digest, write_summary

SECRET = "the-password-of-another-person"
ESCAPE = "\x1b]0;owned\x07\x1b[31m\u202e"

Build = Callable[[Path], Any]


def summary(**changes: Any) -> Build:
    """Change keys of the summary, and correct the checksum in it."""

    def build(run: Path) -> None:
        values = json.loads((run / "summary.json").read_text())
        write_summary(run, values | changes)

    return build


def text(name: str, content: str | bytes) -> Build:
    """Replace the content of a file."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return lambda run: (run / name).write_bytes(data)


def link(name: str) -> Build:
    """Replace a file by a link to a private file."""

    def build(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to("../../outside/secret")

    return build


def pipe(name: str) -> Build:
    """Replace a file by a named pipe."""

    def build(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return build


def endless(name: str) -> Build:
    """Replace a file by a link to /dev/zero, which never ends."""

    def build(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to("/dev/zero")

    return build


def sparse(name: str) -> Build:
    """Extend a file to 64 GiB without using space on the disk."""

    def build(run: Path) -> None:
        with (run / name).open("ab") as file:
            file.truncate(64 * 2**30)

    return build


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Build:
    """Replace the file of the weights by an archive with these members."""

    def build(run: Path) -> None:
        with (
            warnings.catch_warnings(action="ignore"),  # zipfile warns of repeated names
            zipfile.ZipFile(run / "model_best.npz", "w", compression) as file,
        ):
            for name, data in members:
                file.writestr(name, data)

    return build


def array(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    """Return the bytes of a new ``.npy`` file with this header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(header), 65535)) + header + data


def flipped(name: str) -> Build:
    """Flip a bit in the middle of a file."""

    def build(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(data)

    return build


def picture(name: str, content: str) -> Build:
    """Add a picture to the plots."""

    def build(run: Path) -> None:
        (run / "plots").mkdir()
        (run / "plots" / name).write_text(content)

    return build


def linked_picture(run: Path) -> None:
    (run / "plots").mkdir()
    (run / "plots" / "b.svg").symlink_to("../../../outside/secret.svg")


def linked_plots(run: Path) -> None:
    (run / "plots").symlink_to("../../outside")


def unfinished(build: Build) -> Build:
    """Remove the summary, so that the commands need the other files, and apply ``build``."""

    def both(run: Path) -> None:
        (run / "summary.json").unlink()
        build(run)

    return both


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)

ROW = "1,1,0.1,1.0,0.5,1.0,0.5,0.0,1.0,0.1"
HEADER = (
    "epoch,step,lr,train_loss,train_accuracy,validation_loss,validation_accuracy,"
    "penalty,gradient_norm,seconds"
)

SUMMARIES: dict[str, Build] = {
    "data is a text": summary(data="x"),
    "sources are numbers": summary(data={"name": "x", "sources": {"f": 1}}),
    "sources are a list": summary(data={"name": "x", "sources": ["f"]}),
    "status is a list": summary(status=["done"]),
    "status is unknown": summary(status="finished"),
    "seed is a truth value": summary(seed=True),
    "seed is huge": summary(seed=10**300),
    "seed is null": summary(seed=None),
    "overrides are numbers": summary(overrides=[1]),
    "config is a list": summary(config=[]),
    "error is a map": summary(error={}),
    "a metric is a text": summary(test_accuracy="0.99"),
    "a metric is a list": summary(test_accuracy=[0.99]),
    "finished is a number": summary(finished=3),
    "finished has no zone": summary(finished="2026-01-01T00:00:00"),
    "machine is a text": summary(machine="fast"),
    "versions are numbers": summary(versions={"numpy": 2}),
    "nested 100,000 deep": text("summary.json", "[" * 100_000 + "]" * 100_000),
    "nested 300 deep": text(
        "summary.json", '{"status": "done", "a": ' + "[" * 300 + "]" * 300 + "}"
    ),
    "a number beyond float64": text("summary.json", '{"status": "done", "a": 1e999}'),
    "a key twice": text("summary.json", '{"status": "done", "status": "failed"}'),
    "NaN": text("summary.json", '{"status": "done", "test_loss": NaN}'),
    "an integer of 5,000 digits": text("summary.json", '{"status": ' + "9" * 5000 + "}"),
    "no JSON": text("summary.json", b"\x80\x81"),
    "one bit flipped": flipped("summary.json"),
    "a link": link("summary.json"),
    "a pipe": pipe("summary.json"),
    "endless": endless("summary.json"),
    "64 GiB": sparse("summary.json"),
}
"""Summaries that the commands refuse and name, with exit code 3; ``diff`` may also use 2."""

HARMLESS: dict[str, Build] = {
    "started before the year 1": summary(started="0001-01-01T00:00:00+14:00"),
    "finished after the year 9999": summary(finished="9999-12-31T23:59:59-14:00"),
    "a loss of 1e308": summary(test_loss=1.7e308, final_train_loss=1.79769e308),
    "a loss of 5e-324": summary(test_loss=5e-324),
    "seconds of 1e308": summary(total_seconds=1.7e308, train_seconds=1.7e308),
    "an epoch of 2^63": summary(best_epoch=2**63, epochs=2**63),
    "escapes in the error": summary(status="failed", error=f"{ESCAPE}\nnnopt: error: x"),
    "escapes in settings": summary(config={"dataset": {"name": "spiral"}, ESCAPE: ESCAPE}),
    "markup in settings": summary(
        config={"dataset": "spiral", "[/red]": "[/]", "optimizer": {"[red]x": "</script>"}}
    ),
    "another dataset's name": summary(config={"dataset": [["x"]], "seed": 0}, status="failed"),
    "metrics: a link": link("metrics.csv"),
    "metrics: a pipe": pipe("metrics.csv"),
    "metrics: endless": endless("metrics.csv"),
    "metrics: 64 GiB": sparse("metrics.csv"),
    "metrics: a text as number": text("metrics.csv", f"{HEADER}\n{ROW.replace('0.5', 'x')}\n"),
    "metrics: an underscore": text("metrics.csv", f"{HEADER}\n{ROW.replace('1.0', '1_0')}\n"),
    "metrics: null bytes": text("metrics.csv", f"{HEADER}\n\0\0\n"),
    "metrics: a huge cell": text("metrics.csv", f"{HEADER}\n{'9' * 300_000}\n"),
    "metrics: a missing column": text("metrics.csv", f"{HEADER[6:]}\n{ROW[2:]}\n"),
    "metrics: one bit flipped": flipped("metrics.csv"),
    "log: a link": link("run.log"),
    "log: a pipe": pipe("run.log"),
    "log: endless": endless("run.log"),
    "log: 64 GiB": sparse("run.log"),
    "log: a script": text("run.log", "</script><script>alert(1)</script>" + ESCAPE),
    "config: a link": link("config.yaml"),
    "config: a pipe": pipe("config.yaml"),
    "config: aliases": text("config.yaml", BOMB),
    "unfinished: aliases": unfinished(text("config.yaml", BOMB)),
    "unfinished: tags": unfinished(text("config.yaml", "a: !!python/object/apply:os.getcwd []\n")),
    "unfinished: a list": unfinished(text("config.yaml", "[1, 2]\n")),
    "unfinished: brackets": unfinished(text("config.yaml", "a: " + "[" * 3000)),
    "unfinished: a pipe for the log": unfinished(pipe("run.log")),
    "unfinished: a pipe": unfinished(pipe("config.yaml")),
    "plots: a link": linked_picture,
    "plots: a link to a folder": linked_plots,
    "plots: a script": picture("b.svg", f"<svg><script>{SECRET}</script></svg>"),
    "plots: a handler": picture("b.svg", f"<svg onload='alert(1)'>{SECRET}</svg>"),
    "plots: an entity": picture("b.svg", f"<!DOCTYPE a [<!ENTITY b '{SECRET}'>]><svg>&b;</svg>"),
    "plots: a foreign object": picture(
        "b.svg", f"<svg><foreignObject>{SECRET}</foreignObject></svg>"
    ),
    "plots: markup in a name": picture('"><script>x.svg', "<svg/>"),
    "plots: no picture": picture("b.png", "\x89PNG"),
}
"""Files that ``compare`` and ``report`` leave out or show as text, with exit code 0."""

WEIGHTS: dict[str, Build] = {
    "texts": archive(("a.npy", array("(1,)", "'<U4'", b"a" * 16))),
    "objects": archive(("a.npy", array("(1,)", "'|O'", b"a" * 8))),
    "a record": archive(("a.npy", array("(1,)", "[('a', '<f4')]", b"a" * 4))),
    "a deep header": archive(("a.npy", array("(" * 900 + ")" * 900))),
    "a long header": archive(("a.npy", array("(" + "1," * 20_000 + ")"))),
    "a header that calls a function": archive(("a.npy", array("__import__('os').getpid()"))),
    "a shape of 8 PiB": archive(("a.npy", array("(2251799813685248,)"))),
    "a shape of 20 GB": archive(("a.npy", array("(5000000000,)", data=b"a" * 64))),
    "a negative shape": archive(("a.npy", array("(-1,)"))),
    "a shape of truth values": archive(("a.npy", array("(True,)", data=b"abcd"))),
    "an element of 1 GB": archive(("a.npy", array("(1,)", "'V1000000000'"))),
    "the same name twice": archive(("a.npy", array("(0,)")), ("a.npy", array("(0,)"))),
    "another file": archive(("a.npy", array("(0,)")), ("setup.py", b"x")),
    "compressed zeros": archive(
        ("a.npy", array("(2500000,)", data=bytes(10**7))), compression=zipfile.ZIP_DEFLATED
    ),
    "more numbers than the network": archive(("a.npy", array("(2500000,)", data=bytes(10**7)))),
    "one bit flipped": flipped("model_best.npz"),
    "empty": text("model_best.npz", b""),
    "a link": link("model_best.npz"),
    "a pipe": pipe("model_best.npz"),
    "64 GiB": sparse("model_best.npz"),
}
"""Weights that diff refuses and names, with exit code 3."""


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the finished runs a and b."""
    folder = tmp_path_factory.mktemp("sender")
    for seed, name in enumerate("ab"):
        overrides = [
            "epochs=1",
            "max_steps=1",
            "dataset.samples_per_class=9",
            "plots=false",
            f"seed={seed}",
        ]
        assert run_verb(["run", *overrides, f"hydra.run.dir={folder / name}"]) == 0
    return folder


@pytest.fixture
def runs(sent: Path, workplace: Path) -> Path:
    """Return a copy of the folder with both runs. Private files lie next to it."""
    shutil.copytree(sent, workplace / "runs")
    (workplace / "outside").mkdir()
    for name in ("secret", "secret.svg", "c.svg"):
        (workplace / "outside" / name).write_text(f"<svg>{SECRET}</svg>")
    return workplace / "runs"


def everything_told(attempt: Command, expected: set[int]) -> list[Attempt]:
    """Return the results of ``compare`` and ``report``, which must show no dangerous text.

    ``expected`` are the allowed exit codes.
    """
    results = [attempt("compare", "runs", "--metric", "test_accuracy", "--format", "csv")]
    results.append(attempt("compare", "runs", "--metric", "test_accuracy,total_seconds"))
    results.append(attempt("report", "runs", "--out", "page.html"))
    page = Path("page.html").read_text() if Path("page.html").exists() else ""
    for result in results:
        assert result.code in expected, result.err
        printed = result.out + result.err + page
        assert SECRET not in printed
        assert "\x1b" not in printed
        assert "\u202e" not in printed
        assert len(printed) < 2_000_000
    assert page.count("</script>") in (0, 2)
    return results


@pytest.mark.parametrize("build", SUMMARIES.values(), ids=SUMMARIES)
def test_hostile_summary_is_refused_with_its_path(
    attempt: Command, runs: Path, build: Build
) -> None:
    build(runs / "b")
    for result in everything_told(attempt, {3}):
        assert "runs/b/summary.json" in result.err
        assert len(result.err.splitlines()) == 1
    assert attempt("diff", "runs/a", "runs/b").code in (2, 3)


@pytest.mark.parametrize("build", HARMLESS.values(), ids=HARMLESS)
def test_compare_and_report_succeed_despite_hostile_file(
    attempt: Command, runs: Path, build: Build
) -> None:
    build(runs / "b")
    everything_told(attempt, {0})
    assert attempt("diff", "runs/a", "runs/b").code in (0, 2)
    for form in ("md", "latex", "html"):
        assert attempt("compare", "runs", "--format", form).code == 0


@pytest.mark.parametrize("build", (SUMMARIES | HARMLESS).values(), ids=SUMMARIES | HARMLESS)
def test_resume_command_on_hostile_run_changes_no_other_file(
    attempt: Command, runs: Path, workplace: Path, build: Build
) -> None:
    build(runs / "b")
    others = [x for x in workplace.rglob("*") if runs / "b" not in (x, *x.parents) and x.is_file()]
    before = {path: path.read_bytes() for path in others}
    result = attempt("resume", "runs/b", "plots=false")
    assert result.code in (0, 4)
    assert SECRET not in result.out + result.err
    assert len(result.err) < 2_000
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("build", WEIGHTS.values(), ids=WEIGHTS)
def test_diff_command_needs_little_memory_to_refuse_hostile_weights(
    attempt: Command, runs: Path, build: Build
) -> None:
    build(runs / "b")
    (runs / "b" / "model.json").unlink()  # a run of an earlier version has no hash of its weights
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = attempt("diff", "runs/a", "runs/b")
    result.is_refused(4, "runs/b/model_best.npz is damaged: ")
    assert len(result.err) < 800
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB


def replaced(**changes: Any) -> Build:
    """Change keys of the model's description, and correct the checksum in it."""

    def build(run: Path) -> None:
        values = json.loads((run / "model.json").read_text()) | changes
        path = run / "model.json"
        path.write_text(json.dumps(values | {"sha256": values_digest(values)}))

    return build


def large_weights(run: Path) -> None:
    """Extend the weights to 64 GiB, and change their record."""
    sparse("model_best.npz")(run)
    values = json.loads((run / "model.json").read_text())
    values["weights"]["best"]["size"] = (run / "model_best.npz").stat().st_size
    replaced(**values)(run)


MODELS: dict[str, Build] = {
    "a link": link("model.json"),
    "a pipe": pipe("model.json"),
    "endless": endless("model.json"),
    "64 GiB": sparse("model.json"),
    "deep JSON": text("model.json", '{"format": 1, "config":' + "[" * 100_000),
    "control characters": replaced(classes=[{ESCAPE: ESCAPE}]),
    "a deep network": replaced(architecture={"name": "layers", "layers": [[[["relu"]]]] * 9}),
    "a wide network": replaced(
        architecture={"name": "layers", "layers": [{"dense": 10**9}, {"dense": "classes"}]}
    ),
    "a foreign architecture": replaced(architecture={"name": "os.system"}),
    "weights of 64 GiB": large_weights,
    "linked weights": link("model_best.npz"),
    "a pipe of weights": pipe("model_best.npz"),
    "another bit": flipped("model_best.npz"),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_predict_command_refuses_hostile_model_with_little_memory(
    attempt: Command, runs: Path, build: Build
) -> None:
    build(runs / "b")
    np.save("x.npy", np.ones((1, 2)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = attempt("predict", "runs/b", "x.npy", "--out", "p.csv")
    result.is_refused(4, "runs/b/model")
    assert SECRET not in result.out + result.err
    assert len(result.err) < 1_500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB


def test_compare_command_shows_losses_near_float_maximum(
    attempt: Command, leave_run: Callable[..., Path], workplace: Path
) -> None:
    for name, lr, losses in (("a", 0.1, (1.7e308, -1.7e308)), ("b", 0.2, (1e308, 1e308))):
        for seed, loss in enumerate(losses):
            changes = {"optimizer.lr": lr}
            leave_run(workplace / "runs" / f"{name}{seed}", seed, changes, test_loss=loss)
    arguments = ("compare", "runs", "--metric", "test_loss", "--baseline", "optimizer.lr=0.1")
    printed = attempt(*arguments)
    printed.is_done("inf", "1e+308")
    assert "nan" not in printed.out
    attempt("report", "runs", "--metric", "test_loss").is_done()
    attempt("compare", "runs", "--metric", "test_loss", "--plots", "p").is_done()


def test_diff_of_different_architectures_lists_few_arrays(
    attempt: Command, workplace: Path
) -> None:
    arguments = ["run", "epochs=1", "max_steps=1", "dataset.samples_per_class=9", "plots=false"]
    attempt(*arguments, "hydra.run.dir=a", "architecture.hidden=[4]").is_done()
    deep = f"architecture.hidden={[3] * 12}".replace(" ", "")
    attempt(*arguments, "hydra.run.dir=b", deep).is_done()
    printed = attempt("diff", "a", "b")
    printed.is_done("arrays that differ in shape or are not in both files: dense1.weight", "more")


def test_weights_are_read_with_the_same_values_as_by_numpy(sent: Path) -> None:
    from nnopt.results.weights import read_weights

    actual = read_weights(sent / "a" / "model_best.npz")
    with np.load(sent / "a" / "model_best.npz") as expected:
        assert set(actual) == set(expected.files)
        for name, array in actual.items():
            np.testing.assert_array_equal(array, expected[name], strict=True)
