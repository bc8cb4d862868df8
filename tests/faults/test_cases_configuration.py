"""Unusual and wrong overrides, files and sweeps, which nnopt accepts or refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Command

CONFIG = ["run", "--cfg", "job"]
EXPERIMENT = "conf/experiment/mine.yaml"
MINE = [*CONFIG, "experiment=mine"]
MARK = "# @package _global_\n"


def write(path: str, content: str | bytes) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def files_of(workplace: Path) -> set[str]:
    return {str(path.relative_to(workplace)) for path in workplace.rglob("*")}


READ_FILES: dict[str, tuple[dict[str, str | bytes], list[str], str]] = {
    "no first line": ({EXPERIMENT: "epochs: 7\n"}, MINE, "epochs: 7\n"),
    "first line after a BOM": ({EXPERIMENT: f"\ufeff{MARK}epochs: 7\n"}, MINE, "epochs: 7\n"),
    "first line after a comment": ({EXPERIMENT: f"# a\n{MARK}epochs: 7\n"}, MINE, "epochs: 7\n"),
    "first line after a blank": ({EXPERIMENT: f"\n\n{MARK}epochs: 7\n"}, MINE, "epochs: 7\n"),
    "Windows line breaks": ({EXPERIMENT: "seed: 1\r\nepochs: 7\r\n"}, MINE, "epochs: 7\n"),
    "defaults only": (
        {EXPERIMENT: "defaults:\n  - override /optimizer: adam\n"},
        MINE,
        "name: adam\n",
    ),
    "nested folder": (
        {"conf/experiment/a/b.yaml": "epochs: 7\n"},
        [*CONFIG, "experiment=a/b"],
        "epochs: 7\n",
    ),
    "nested folder of a group": (
        {"conf/optimizer/a/b.yaml": "name: sgd\nlr: 0.77\n"},
        [*CONFIG, "optimizer=a/b"],
        "lr: 0.77\n",
    ),
    ".yml": ({"conf/experiment/mine.yml": "epochs: 7\n"}, MINE, "epochs: 7\n"),
    "+experiment": (
        {EXPERIMENT: "epochs: 7\n"},
        [*CONFIG, "+experiment=mine"],
        "epochs: 7\n",
    ),
    "unquoted off": (
        {EXPERIMENT: "defaults: [{override /backend: torch}]\nbackend: {compile: off}\n"},
        [*CONFIG, "experiment=mine", "backend.precision=bf16"],
        "precision: bf16\n",
    ),
    "own config.yaml": ({"conf/config.yaml": "epochs: 7\n"}, CONFIG, "epochs: 7\n"),
    "own config.yaml with defaults": (
        {"conf/config.yaml": "defaults: [{optimizer: adam}, _self_]\nepochs: 7\n"},
        CONFIG,
        "name: adam\n",
    ),
    "own config.yaml with an experiment": (
        {"conf/config.yaml": "defaults: [{experiment: mine}]\n", EXPERIMENT: "epochs: 7\n"},
        CONFIG,
        "epochs: 7\n",
    ),
    "own group": (
        {"conf/task/a.yaml": f"{MARK}epochs: 7\n"},
        [*CONFIG, "+task=a"],
        "epochs: 7\n",
    ),
    "aliases": ({EXPERIMENT: "epochs: &n 7\nseed: *n\n"}, MINE, "epochs: 7\n"),
    "exponents": ({EXPERIMENT: "optimizer: {lr: 1e-3}\n"}, MINE, "lr: 0.001\n"),
}


@pytest.mark.parametrize(("files", "overrides", "printed"), READ_FILES.values(), ids=READ_FILES)
def test_config_file_of_unusual_form_is_accepted(
    attempt: Command,
    workplace: Path,
    files: dict[str, str | bytes],
    overrides: list[str],
    printed: str,
) -> None:
    for path, content in files.items():
        write(path, content)
    attempt(*overrides).is_done(printed)


REFUSED_FILES: dict[str, tuple[str | bytes, str]] = {
    "list at the top": ("- epochs: 7\n", "mine.yaml is a list, not a map"),
    "word at the top": ("epochs\n", "mine.yaml is a text, not a map"),
    "number at the top": ("7\n", "mine.yaml is a number, not a map"),
    "empty": ("", "mine.yaml is empty"),
    "only comments": (f"{MARK}# epochs: 7\n", "mine.yaml is empty"),
    "no key": ("defaults: [_self_]\n", "mine.yaml sets no key"),
    "another package": ("# @package optimizer\nlr: 7\n", "line 1: '# @package optimizer'"),
    "keys below experiment": (
        "experiment:\n  optimizer: {lr: 7}\n",
        "unknown key 'experiment'",
    ),
    "dots in a key": ("optimizer.lr: 7\n", "line 1: the key 'optimizer.lr' must be nested"),
    "missing group in defaults": (
        "seed: 1\ndefaults:\n- override /optimiser: sgd\n",
        "line 3: unknown group 'optimiser' in the list of defaults; did you mean 'optimizer'?",
    ),
    "misspelt group in defaults": (
        "defaults:\n- schedules: cosine\n",
        "line 2: unknown group 'schedules' in the list of defaults; did you mean 'schedule'?",
    ),
    "unknown group in defaults": (
        "defaults:\n- /zzz: cosine\n",
        "line 2: unknown group 'zzz' in the list of defaults; allowed: ablation, architecture, ",
    ),
    "missing file in defaults": (
        "defaults:\n- override /optimizer: sdg\n",
        "line 2: Could not find 'optimizer/sdg'",
    ),
    "defaults without override": ("defaults: [{optimizer: sgd}]\n", "'override /optimizer: sgd'"),
    "cyclic defaults": ("defaults: [mine]\nseed: 1\n", "in a circle"),
    "settings of Hydra's": ("hydra: {job: {chdir: true}}\n", "unsupported setting of Hydra"),
    "unclosed interpolation": ("seed: 1\nname: ${a\n", "line 2: name: "),
    "interpolation of no key": ("name: a${nowhere}\n", "name: Interpolation key 'nowhere'"),
    "interpolation in a circle": ("seed: ${epochs}\nepochs: ${seed}\n", "mine.yaml, line 1)"),
    "unknown resolver": ("name: ${nothing:3}\n", "name: Unsupported interpolation type nothing"),
    "3,000 brackets": ("a: " + "[" * 3000, "nested more than 50 levels"),
    "5,000 digits": ("seed: " + "9" * 5000, "line 1: a number has 5,000 digits"),
    "null as a key": ("null: 1\n", "line 1: the key 'null' is null"),
    "list as a key": ("? [a]\n: 1\n", "line 1: the key is a list"),
    "number as a key": ("1: 1\n", "line 1: the key '1' is a number"),
    "off as a key": ("off: 1\n", "line 1: the key 'off' is true or false"),
    "value out of range": ("seed: 1\nepochs: -3\n", "mine.yaml, line 2)"),
    "unknown key": ("seed: 1\noptm: 3\n", "mine.yaml, line 2)"),
    "group set to null": ("seed: 1\noptimizer:\n", "mine.yaml, line 2)"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES)
def test_config_file_that_is_wrong_or_ambiguous_is_refused(
    attempt: Command, workplace: Path, content: str | bytes, message: str
) -> None:
    write(EXPERIMENT, content)
    result = attempt("run", "experiment=mine")
    result.is_refused(2, "conf/experiment/mine.yaml", message)
    assert result.err.count("\n") == 1
    assert not Path("outputs").exists()


REFUSED_FILES_OF_GROUPS = {
    "another package": ("optimizer/a", "# @package optmizer\nname: sgd\nlr: 1\n"),
    "global": ("optimizer/a", f"{MARK}optimizer: {{name: sgd, lr: 1}}\nepochs: 7\n"),
    "empty": ("optimizer/a", ""),
    "no package": ("task/a", "epochs: 7\n"),
    "hidden by another suffix": ("optimizer/a", "name: sgd\nlr: 1\n"),
    "ablation": ("ablation/a", "hydra: {sweeper: {parms: {seed: '1,2'}}}\n"),
}


@pytest.mark.parametrize(
    ("name", "content"), REFUSED_FILES_OF_GROUPS.values(), ids=REFUSED_FILES_OF_GROUPS
)
def test_group_file_that_is_wrong_or_ambiguous_is_refused(
    attempt: Command,
    workplace: Path,
    request: pytest.FixtureRequest,
    name: str,
    content: str,
) -> None:
    write(f"conf/{name}.yaml", content)
    if "suffix" in request.node.name:
        write(f"conf/{name}.yml", content)
    group = name.partition("/")[0]
    attempt("run", f"+{group}=a").is_refused(2, f"conf/{name}.yaml")
    assert not Path("outputs").exists()


def test_config_dir_with_unread_files_is_refused(attempt: Command, workplace: Path) -> None:
    write("more/optimizer/adam.yaml", "name: adam\nlr: 1\n")
    arguments = ["run", "--cfg", "job", "--config-dir", "more"]
    attempt(*arguments, "optimizer=adam").is_refused(2, "more/optimizer/adam.yaml is not read")
    attempt(*arguments, "optimizer=sgd").is_done("lr: ")
    write("more/config.yaml", "epochs: 7\n")
    attempt(*arguments).is_refused(2, "the file config.yaml in this folder would not be read")


REFUSED_WORDS = {
    "umlauts": ("dataset.train=größe.csv", """'dataset.train="größe.csv"'"""),
    "equals sign": ("name=a=b", """'name="a=b"'"""),
    "brackets": ("name=a(1)", """'name="a(1)"'"""),
    "open list": ("architecture.hidden=[3", "brackets or quotes do not match"),
    "open interpolation": ("name=${seed", "an interpolation '${' has no '}'"),
    "interpolation of no key": ("name=a${nowhere}", "name: Interpolation key 'nowhere'"),
    "interpolation in a circle": ("seed=${seed}", "seed: "),
    "5,000 digits": ("seed=" + "9" * 5000, "too many digits"),
    "3,000 brackets": ("name=" + "[" * 3000 + "]" * 3000, "brackets"),
    "range in a list": ("architecture.hidden=[range(3)]", "cannot be part of a list"),
    "unknown function": ("name=abs(3)", "Unknown function 'abs'"),
    "package of an override": ("optimizer@schedule=adam", "leave '@...' out"),
}


@pytest.mark.parametrize(("word", "message"), REFUSED_WORDS.values(), ids=REFUSED_WORDS)
def test_malformed_argument_is_refused_with_remedy(
    attempt: Command, workplace: Path, word: str, message: str
) -> None:
    result = attempt("run", word)
    result.is_refused(2, message)
    assert len(result.err) < 600
    assert files_of(workplace) == set()


READ_WORDS = {
    "percent": ("name=a%b", 2, "needs letters, digits"),
    "quoted umlauts": ('name="größe"', 0, "größe"),
    "space": ("data.root=my data", 0, "root: my data\n"),
    "off": ("backend.compile=off", 0, "compile: 'off'\n"),
    "+key": ("+optimizer.lr=0.5", 0, "lr: 0.5\n"),
    "++key": ("++optimizer.lr=0.5", 0, "lr: 0.5\n"),
}


@pytest.mark.parametrize(("word", "code", "message"), READ_WORDS.values(), ids=READ_WORDS)
def test_cfg_job_option_reads_arguments_as_the_run_does(
    attempt: Command, workplace: Path, word: str, code: int, message: str
) -> None:
    backend = ["backend=torch"] if "backend" in word else []
    printed = attempt("run", "--cfg", "job", *backend, word)
    assert printed.code == code
    assert message in printed.out + printed.err
    quick = ["epochs=1", "max_steps=1", "plots=false", "hydra.run.dir=run"]
    result = attempt("run", *backend, *quick, word)
    assert result.code == code
    assert message in (result.err if code else (workplace / "run" / "config.yaml").read_text())


def points_of(workplace: Path, key: str) -> list[float]:
    (path,) = workplace.glob("outputs/sweeps/*/sweep.json")
    values = []
    for point in json.loads(path.read_text())["points"]:
        value = point["config"]
        for name in key.split("."):
            value = value[name]
        values.append(value)
    return values


def test_sweep_over_range_has_no_rounding_errors(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = [
        "epochs=1",
        "max_steps=1",
        "plots=false",
        "dataset.samples_per_class=20",
        f"backend={backend}",
    ]
    attempt("run", "-m", *overrides, "optimizer.lr=sort(range(0.1,0.5,0.1),reverse=true)").is_done()
    assert points_of(workplace, "optimizer.lr") == [0.4, 0.3, 0.2, 0.1]


LONG_SWEEPS = {
    "a small step": ["optimizer.lr=range(0,1,1e-9)"],
    "many seeds": ["seed=range(0,10000000)"],
    "a product": ["seed=range(1000)", "epochs=range(1,1000)"],
    "params": ['hydra.sweeper.params={seed: "range(10000000)"}'],
    "grids": ['hydra.sweeper.grids=[{seed: "range(90000)"},{seed: "range(90000)"}]'],
    "a search": ["hydra/sweeper=optuna", "epochs=1,2", "seed=range(10000000)"],
}


@pytest.mark.parametrize("overrides", LONG_SWEEPS.values(), ids=LONG_SWEEPS)
def test_sweep_of_too_many_points_is_refused(
    attempt: Command, workplace: Path, overrides: list[str]
) -> None:
    attempt("run", "-m", *overrides).is_refused(2, "at most 100,000 points")
    assert files_of(workplace) == set()


def test_search_draws_from_the_values_of_a_range(attempt: Command, workplace: Path) -> None:
    overrides = [
        "epochs=1",
        "max_steps=1",
        "plots=false",
        "dataset.samples_per_class=20",
        "hydra/sweeper=optuna",
    ]
    draws = ["hydra.sweeper.trials=12", "hydra.sweeper.sampler=random"]
    result = attempt("run", "-m", *overrides, *draws, "optimizer.lr=range(0.1,0.5,0.1)")
    result.is_done()
    assert "arning" not in result.err
    assert set(points_of(workplace, "optimizer.lr")) == {0.1, 0.2, 0.3, 0.4}
