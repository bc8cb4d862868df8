"""Regression tests of errors that a review of nnopt found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from commands import Command

import nnopt

QUICK = ("epochs=1", "max_steps=1", "plots=false")
LIST = "hydra:\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.2\n"


def write_rows(path: Path, first: int = 0, columns: str = "a,label", count: int = 40) -> None:
    """Write features that count up from ``first``, with two alternating classes."""
    features = len(columns.split(",")) - 1
    rows = [[*[first + k] * features, k % 2] for k in range(count)]
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")


# Configurations that are refused ------------------------------------------------------------------

NO_SWEEP = {
    "params of an ablation": ("ablation", "# @package _global_\n" + LIST, "sweeper.params"),
    "params without the package line": ("ablation", LIST, "sweeper.params"),
    "params of an experiment": ("experiment", "# @package _global_\n" + LIST, "sweeper.params"),
    "grids": ("ablation", "hydra:\n  sweeper:\n    grids: [{seed: '1,2'}]\n", "sweeper.grids"),
}


@pytest.mark.parametrize(("group", "content", "key"), NO_SWEEP.values(), ids=NO_SWEEP)
def test_run_without_multirun_refuses_sweep_in_file(
    attempt: Command, workplace: Path, backend: str, group: str, content: str, key: str
) -> None:
    file = workplace / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    overrides = (f"{group}=mine", f"backend={backend}", "dataset.samples_per_class=20", *QUICK)
    place = f"conf/{group}/mine.yaml, line "
    attempt("run", *overrides).is_refused(2, key, "nnopt run -m", "mode: MULTIRUN", place)
    attempt("run", "-m", *overrides).is_done()


LIBRARY_TEXTS = {
    "open interpolation": ("name: ${a\n", "the interpolation '${a' cannot be read"),
    "variable that is not set": ("name: ${oc.env:NNOPT_NO}\n", "'NNOPT_NO' not found"),
    "list of overrides": (
        "hydra:\n  sweeper:\n    params:\n      - seed=1,2\n",
        "hydra.sweeper.params is a list, but needs a map",
    ),
}


@pytest.mark.parametrize(("content", "text"), LIBRARY_TEXTS.values(), ids=LIBRARY_TEXTS)
def test_message_of_hydra_is_rewritten(
    attempt: Command, workplace: Path, content: str, text: str
) -> None:
    file = workplace / "conf" / "ablation" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    refused = attempt("run", "-m", "ablation=mine")
    refused.is_refused(2, text)
    assert "raised while" not in refused.err
    assert "viable" not in refused.err


UNMERGED = {
    "list of overrides": (
        "hydra: {sweeper: {params: [seed=1]}}\n",
        "hydra.sweeper.params is a list",
    ),
    "list of settings": ("epochs: 1\noptimizer: [adam]\n", "optimizer is a list, but needs a map"),
    "list below a group": ("dataset:\n  validation: [1]\n", "dataset.validation is a list"),
    "map of layer sizes": ("architecture:\n  hidden: {a: 1}\n", "architecture.hidden is a map"),
    "map of grids": ("hydra: {sweeper: {grids: {seed: 1}}}\n", "hydra.sweeper.grids is a map"),
    "unknown mode": ("hydra: {mode: many}\n", "hydra.mode: Invalid value 'many'"),
    "list as a folder": ("hydra: {sweep: {dir: [1]}}\n", "hydra.sweep.dir: Cannot convert"),
}
"""Files that cannot be merged into the configuration. Their last line contains the wrong value."""

SWEPT = {
    "unknown key": ("optimizr.lr: 3", "unknown key 'optimizr.lr'"),
    "unknown file of a group": ("optimizer: adam,adem", "optimizer = 'adem': did you mean 'adam'?"),
    "text in place of a number": ("optimizer.lr: 0.1, x", "optimizer.lr = 'x': needs a number"),
    "map": ("optimizer.lr: {a: 1}", "optimizer.lr = {'a': 1}: needs values, not"),
    "unbalanced brackets": ("optimizer.lr: '1,['", "params.optimizer.lr = '1,[': cannot read"),
    "setting of Hydra": ("hydra.job.name: a", "params.hydra.job.name = 'a': unsupported"),
    "negative number": ("optimizer.lr: -1,0.1", "optimizer.lr = -1.0: needs to be at least 0"),
    "number in scientific form": ("optimizer.lr: 0.1,-1e-3", "optimizer.lr = -0.001: needs to be"),
    "whole number out of range": ("epochs: 1,0", "epochs = 0: needs to be at least 1"),
    "range": ("optimizer.lr: range(-2,0)", "optimizer.lr = -2.0: needs to be at least 0"),
    "choice": ("optimizer.lr: 'choice(0.1, -1)'", "optimizer.lr = -1.0: needs to be at least 0"),
    "quoted text": ("optimizer: \"adam,'a b'\"", "optimizer = 'a b': allowed: "),
    "number in a list": ("architecture.hidden: '[4],[8,0]'", "hidden[1] = 0: needs to be at"),
    "truth value": ("optimizer.lr: 0.1,true", "optimizer.lr = True: needs a number or auto ("),
    "not a number": ("optimizer.lr: .nan", "optimizer.lr = nan: needs a finite number"),
    "word that YAML reads": ("regularizer.norm: no", "YAML reads no and off without quotes"),
    "range of a text": ("epochs: 'range(5,x)'", "params.epochs = 'range(5,x)': a range needs"),
    "types that do not compare": ("epochs: 'sort(1,a)'", "'sort(1,a)': cannot be evaluated; write"),
}
"""Wrong entries of ``hydra.sweeper.params``."""


@pytest.mark.parametrize("group", ["ablation", "experiment"])
@pytest.mark.parametrize(("content", "text"), UNMERGED.values(), ids=UNMERGED)
def test_file_with_wrong_value_type_is_refused_with_its_line(
    attempt: Command, workplace: Path, group: str, content: str, text: str
) -> None:
    file = workplace / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"name: mine\n{content}")
    line = 1 + content.count("\n")
    attempt("run", "-m", f"{group}=mine").is_refused(2, text, f"mine.yaml, line {line}")


@pytest.mark.parametrize(("entry", "text"), SWEPT.values(), ids=SWEPT)
def test_wrong_entry_of_params_is_refused_with_its_line(
    attempt: Command, workplace: Path, entry: str, text: str
) -> None:
    file = workplace / "conf" / "ablation" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"hydra:\n  sweeper:\n    params:\n      seed: 1,2\n      {entry}\n")
    attempt("run", "-m", "ablation=mine").is_refused(2, text, "(conf/ablation/mine.yaml, line 5)")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("off", "norm = False: allowed: none, batch, layer, group; YAML reads no and off"),
        ("no", "norm = False: allowed: none, batch, layer, group; YAML reads no and off"),
        ("on", "norm = True: allowed: none, batch, layer, group; YAML reads yes and on"),
        ("yes", "norm = True: allowed: none, batch, layer, group; YAML reads yes and on"),
        ("'off'", "norm = 'off': allowed: none, batch, layer, group (conf"),
    ],
)
def test_yaml_boolean_for_text_key_is_explained(
    attempt: Command, workplace: Path, word: str, text: str
) -> None:
    file = workplace / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"regularizer:\n  norm: {word}\n")
    attempt("run", "experiment=mine").is_refused(2, text, "(conf/experiment/mine.yaml, line 2)")


UNQUOTED = {
    "choice that may be none": (
        "regularizer.norm=false",
        "allowed: none, batch, layer, group; write",
    ),
    "choice": ("regularizer.norm=true", "norm = True: allowed: none, batch, layer, group"),
    "text": ("name=true", "name = True: needs a text; quote the word"),
    "number": ("optimizer.lr=true", "optimizer.lr = True: needs a number or auto"),
}
"""Command-line values that are true or false, for keys that need a text or a number."""


@pytest.mark.parametrize(("word", "text"), UNQUOTED.values(), ids=UNQUOTED)
def test_command_line_boolean_is_refused_without_yaml_hint(
    attempt: Command, word: str, text: str
) -> None:
    refused = attempt("run", word)
    refused.is_refused(2, text)
    assert "YAML" not in refused.err


@pytest.mark.parametrize(
    ("content", "line", "text"),
    [
        ("seed: 1\noptimizer:\n  lr: yes\n", 3, "optimizer.lr = True: needs a number or auto ("),
        ("epochs: off\n", 1, "epochs = False: needs a whole number ("),
        (
            "name: yes\n",
            1,
            "a text; YAML reads yes and on without quotes as true, a truth value; q",
        ),
        ("optimizer:\n  name: no\n", 2, "YAML reads no and off without quotes as false, a truth"),
    ],
)
def test_yaml_boolean_for_key_of_any_type_is_explained(
    attempt: Command, workplace: Path, content: str, line: int, text: str
) -> None:
    file = workplace / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    attempt("run", "experiment=mine").is_refused(2, text, f"mine.yaml, line {line})")


@pytest.mark.parametrize(("start", "lowest"), [("-1", "-1.0"), ("-0.5", "-0.5")])
def test_search_interval_out_of_range_is_refused_with_its_line(
    attempt: Command, workplace: Path, start: str, lowest: str
) -> None:
    file = workplace / "conf" / "ablation" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"hydra:\n  sweeper:\n    params:\n      optimizer.lr: interval({start},1)\n")
    refused = attempt("run", "-m", "hydra/sweeper=optuna", "ablation=mine")
    refused.is_refused(2, f"optimizer.lr = {lowest}: needs to be", "mine.yaml, line 4)")


GROUPS = {
    "below the group of the file": ("dataset/m", "[spiral, {sub: b}]", "'dataset/sub/b'"),
    "from the top": ("dataset/m", "[spiral, {/dataset/sub: b}]", "'dataset/sub/b'"),
    "of an experiment": ("experiment/m", "[{/dataset/sub: b}]", "'dataset/sub/b'"),
}
"""Files whose list of defaults names a missing file of a nested group."""


@pytest.mark.parametrize(("name", "defaults", "text"), GROUPS.values(), ids=GROUPS)
def test_missing_file_of_inner_group_is_refused_with_its_name(
    attempt: Command, workplace: Path, name: str, defaults: str, text: str
) -> None:
    for file, content in {"dataset/sub/a": "points: 3\n", name: f"defaults: {defaults}\n"}.items():
        path = workplace / "conf" / f"{file}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    refused = attempt("run", name.replace("/", "="))
    refused.is_refused(2, f"conf/{name}.yaml, line 1: ", text)
    assert "unknown group" not in refused.err


def test_inner_group_that_does_not_exist_is_refused_as_unknown(
    attempt: Command, workplace: Path
) -> None:
    path = workplace / "conf" / "dataset" / "m.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("defaults: [spiral, {sub: a}]\n")
    attempt("run", "dataset=m").is_refused(2, "m.yaml, line 1: unknown group 'sub' in the list")


def test_hydra_setting_of_wrong_type_is_refused_with_reason(attempt: Command) -> None:
    attempt("run", "hydra.mode=many").is_refused(2, "'hydra.mode=many': hydra.mode: Invalid value")
    attempt("run", "hydra.run.dir=[1]").is_refused(2, "'hydra.run.dir=[1]': hydra.run.dir: Cannot")


UNCLEAR = {
    "file name in place of a name": (["experiment=mnist_mlp.yaml"], "did you mean 'mnist_mlp'?"),
    "file name with .yml": (["optimizer=adam.yml"], "did you mean 'adam'?"),
    "key with dashes": (["--epochs=3"], "keys have no dash before them"),
    "key with one dash": (["-optimizer.lr=1"], "keys have no dash before them"),
    "no training file": (["dataset=csv", "dataset.train="], "dataset.train is empty"),
    "no test file": (["dataset=csv", "dataset.train=a.csv", "dataset.test="], "test is empty"),
}


@pytest.mark.parametrize(("arguments", "fragment"), UNCLEAR.values(), ids=UNCLEAR)
def test_message_on_common_mistake_has_remedy(
    attempt: Command, workplace: Path, arguments: list[str], fragment: str
) -> None:
    write_rows(workplace / "a.csv")
    attempt("run", *arguments).is_refused(2, fragment)


# Numbers that are rounded ------------------------------------------------------------------------

ROUNDED = {
    "nanoseconds": (1_700_000_000_000_000_000, "t,label", True),
    "20 digits": (10**19, "t,label", True),
    "next to decimals": (1_700_000_000_000_000_000, "t,label", True),
    "seconds": (1_700_000_000, "t,label", False),
    "largest exact": (2**53 - 100, "t,label", False),
}


@pytest.mark.parametrize(("first", "columns", "is_rounded"), ROUNDED.values(), ids=ROUNDED)
def test_csv_integers_that_float64_merges_are_reported(
    attempt: Command,
    workplace: Path,
    request: pytest.FixtureRequest,
    first: int,
    columns: str,
    is_rounded: bool,
) -> None:
    write_rows(workplace / "a.csv", first, columns)
    if "decimals" in request.node.callspec.id:
        lines = (workplace / "a.csv").read_text().splitlines()
        rows = [f"{k}.5,{line}" for k, line in enumerate(lines[1:])]
        (workplace / "a.csv").write_text("\n".join(["b," + lines[0], *rows]) + "\n")
    ended = attempt("run", "dataset=csv", "dataset.train=a.csv", *QUICK)
    assert ended.code == 0
    assert ("column 't' has different numbers above 2^53" in ended.err) == is_rounded


def test_large_distinct_csv_numbers_give_no_warning(attempt: Command, workplace: Path) -> None:
    rows = "".join(f"{k * 1.37}e30,{k % 2}\n" for k in range(40))
    (workplace / "a.csv").write_text("a,label\n" + rows)
    ended = attempt("run", "dataset=csv", "dataset.train=a.csv", *QUICK)
    assert (ended.code, ended.err) == (0, "")


# Columns among pixels ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixel_mean", "Pixels", "pixel", "id"])
def test_csv_column_among_pixels_is_refused_with_remedies(
    attempt: Command, workplace: Path, name: str
) -> None:
    write_rows(workplace / "a.csv", columns=f"pixel0,pixel1,pixel2,pixel3,{name},label")
    arguments = ("run", "dataset=csv", "dataset.train=a.csv", *QUICK)
    attempt(*arguments).is_refused(
        3, f"and also '{name}'", f"dataset.drop_columns=[{name}]", "shape=[5]"
    )
    attempt(*arguments, f"dataset.drop_columns=[{name}]").is_done()


def test_csv_columns_named_like_pixels_are_features(attempt: Command, workplace: Path) -> None:
    write_rows(workplace / "a.csv", columns="area,pixel_mean,pixel_std,label")
    attempt("run", "dataset=csv", "dataset.train=a.csv", *QUICK).is_done()


# Messages printed once ----------------------------------------------------------------------------

ONCE = {
    "seeds": ["seed=range(4)"],
    "fractions": ["dataset.test_fraction=0.2,0.3,0.4"],
    "precisions": ["backend.dtype=float32,float64"],
}


@pytest.mark.parametrize("overrides", ONCE.values(), ids=ONCE)
def test_repeated_rows_are_reported_once_in_a_sweep(
    attempt: Command, workplace: Path, overrides: list[str]
) -> None:
    rows = "".join(f"{k % 3},{k % 2}\n" for k in range(60))
    (workplace / "a.csv").write_text("x,label\n" + rows)
    ended = attempt("run", "-m", "dataset=csv", "dataset.train=a.csv", *QUICK, *overrides)
    assert ended.code == 0
    assert ended.err.count("the same inputs as a training sample") == 1


# Finished runs and sweeps -------------------------------------------------------------------------

FILES = {
    "file names": ("a.csv", "b.csv"),
    "paths that begin with ./": ("./a.csv", "./b.csv"),
    "paths through another folder": ("parts/../a.csv", "parts/../b.csv"),
}


@pytest.mark.parametrize(("one", "other"), FILES.values(), ids=FILES)
def test_comparison_of_runs_with_swapped_train_and_test_files_is_refused(
    attempt: Command, workplace: Path, one: str, other: str
) -> None:
    (workplace / "parts").mkdir()
    write_rows(workplace / "a.csv")
    write_rows(workplace / "b.csv", 100)
    for folder, train, test in (("x", one, other), ("y", other, one)):
        overrides = (f"dataset.train={train}", f"dataset.test={test}", f"hydra.run.dir={folder}")
        attempt("run", "dataset=csv", *QUICK, *overrides).is_done()
    refused = attempt("compare", "x", "y")
    refused.is_refused(2, "tested on different files", "--allow-mixed-data")
    digest = refused.err.partition("dataset.files=")[2][:8]
    attempt("compare", "x", "y", "--where", f"dataset.files={digest}").is_done("1 run, 1 setting")


CHANGED = {
    "other value": ('"test_accuracy": ', '"test_accuracy": 1', "was changed after nnopt wrote it"),
    "key that is missing": ('"overrides"', '"overrode"', "is damaged: it has no 'overrides'; the"),
    "status": ('"status": "done"', '"status": "dona"', 'is damaged: status is "dona", expected'),
    "no JSON": ("{", "[", "is damaged: it is no JSON that nnopt writes ("),
}
"""Replacements in a summary, and the reason that the message gives."""


@pytest.mark.parametrize(("old", "new", "reason"), CHANGED.values(), ids=CHANGED)
def test_resume_command_with_changed_summary_prints_the_reason(
    attempt: Command, workplace: Path, old: str, new: str, reason: str
) -> None:
    overrides = ("dataset.samples_per_class=20", "seed=0,1", "hydra.sweep.dir=s")
    attempt("run", "-m", *QUICK, *overrides).is_done()
    file = sorted((workplace / "s").glob("*/summary.json"))[0]
    summary = json.loads(file.read_text())
    file.write_text(file.read_text().replace(old, new, 1))
    ended = attempt("resume", "s")
    ended.is_done(f"{file.parent.name}/summary.json {reason}", "; the point runs again\n")
    assert ended.err.count("\n") == 1
    assert json.loads(file.read_text())["test_accuracy"] == summary["test_accuracy"]
    assert attempt("resume", "s").err == ""


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("0.0.9", "resume the sweep with nnopt 0.0.9, which wrote it"),
        (nnopt.__version__, "run the sweep again, in a new folder"),
    ],
)
def test_error_of_resume_command_about_value_out_of_range_has_remedy(
    attempt: Command, workplace: Path, version: str, remedy: str
) -> None:
    assert attempt("run", "-m", *QUICK, "seed=1,2", "hydra.sweep.dir=s").code == 0
    path = workplace / "s/sweep.json"
    found = json.loads(path.read_text())
    del found["sha256"]
    found["nnopt"] = version
    found["points"][0]["config"]["epochs"] = -1
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
    body = ",\n".join(lines)
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(f'{{"sha256": "{digest}",\n{body}}}\n')
    result = attempt("resume", "s")
    result.is_refused(4, f"that nnopt {nnopt.__version__} refuses: epochs = -1", remedy)
