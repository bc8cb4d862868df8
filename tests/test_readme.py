"""The commands of the README and of some guides run, and print output of the documented form."""

from __future__ import annotations

import re
import shlex
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnopt import errors
from nnopt.cli.main import VERBS, run_verb
from nnopt.config.compose import compose_config
from nnopt.data import cifar10

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text("utf-8")
GUIDES = ("backends", "benchmarks", "configuration", "lr_find")
"""Guides in docs/ whose transcripts and tables of commands are also run."""

LIMITS = ("max_steps=3", "schedule.warmup_epochs=0", "plots=false")
"""Overrides that shorten every ``nnopt run`` that trains, except the commands in UNLIMITED."""

UNLIMITED = {
    "nnopt run": 0,
    "nnopt run experiment=mnist_mlp debug=tiny": 0,
    "nnopt run optimzer=adam epochs=-1 regularizer.dropot=0.1": 2,
}
"""Commands that run without ``LIMITS``, and their exit codes."""

SWEEP = "nnopt run ablation=optimizer_spiral"
"""The command that creates the sweep in ``outputs/latest``, which later commands read."""

CIFAR_IMAGES = 100  # number of images in each file, instead of 10,000


@dataclass(frozen=True)
class Example:
    """A command of the README or a guide, and the output shown below it."""

    command: str
    output: tuple[str, ...] = ()


def examples() -> list[Example]:
    """Return the commands of the README, and the commands in transcripts and tables of guides.

    The commands are in ``bash`` and ``console`` blocks, and in the last cells of table rows.
    """
    guides = "\n".join((REPOSITORY / f"docs/{name}.md").read_text("utf-8") for name in GUIDES)
    text = README + "\n" + re.sub(r"^```bash\n.*?^```", "", guides, flags=re.M | re.S)
    found = []
    for kind, block in re.findall(r"^```(bash|console)\n(.*?)^```", text, re.M | re.S):
        if kind == "bash":
            found += [Example(line) for line in block.splitlines()]
            continue
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *output = part.splitlines()
            found.append(Example(command, tuple(output)))
    in_tables = re.findall(r"\| `(nnopt [^`]+)` \|$", text, re.M)
    known = {example.command for example in found}
    return found + [
        Example(command) for command in dict.fromkeys(in_tables) if command not in known
    ]


EXAMPLES = examples()
TO_RUN = [example for example in EXAMPLES if example.command.startswith("nnopt ")]


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with random images in the formats of MNIST, Fashion-MNIST and CIFAR-10."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        folder = root / name / "raw"
        folder.mkdir(parents=True)
        for part, count in (("train", 6800), ("t10k", 100)):
            pixels = random.integers(0, 256, count * 28 * 28, np.uint8).tobytes()
            images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
            labels = struct.pack(">II", 0x801, count) + bytes(n % 10 for n in range(count))
            (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for file in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        records = random.integers(0, 256, (CIFAR_IMAGES, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] = np.arange(CIFAR_IMAGES) % 10
        (folder / f"{file}.bin").write_bytes(records.tobytes())
    return root


@pytest.fixture
def _elsewhere(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty working directory, and select the tiny data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNOPT_DATA_DIR", str(tiny_data))
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", CIFAR_IMAGES)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a documented command, check its exit code, and return its output."""
    arguments = shlex.split(command)[1:]
    if "outputs/latest" in arguments:
        run(SWEEP, capsys)
    if arguments[0] == "run" and "--cfg" not in arguments and command not in UNLIMITED:
        arguments += LIMITS
        if command == SWEEP:  # the output lists the plots of the sweep
            arguments[-1] = "plots=sweep"
    if any(word.startswith("experiment=") for word in arguments):  # large networks: only one seed
        arguments = [re.sub(r"^seed=range\(\d+\)$", "seed=range(1)", word) for word in arguments]
    code = run_verb(arguments)
    printed = capsys.readouterr()
    assert code == UNLIMITED.get(command, 0), printed.err
    return re.sub(f" {' '.join(LIMITS)}", "", printed.out + printed.err, flags=re.I)


def form(line: str) -> str:
    """Return a line with 0 in place of each number, and without verdicts and aligning spaces."""
    line = re.sub(r" best$| \*|(better|worse|not distinguishable)$", "", line)
    line = re.sub(r"[<+-]?\d[\d,.]*(e[+-]\d+)?", "0", line)
    return re.sub(r"[\s-]+", " ", line).strip()


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("example", TO_RUN, ids=lambda example: example.command)
def test_documented_command_prints_documented_output(
    example: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare the lines of the output without numbers. A line "..." matches any lines."""
    printed = run(example.command, capsys)
    if example.output:
        lines = map(form, example.output)
        shown = ["(.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in lines]
        forms = "".join(f"{form(line)}\n" for line in printed.splitlines())
        assert re.fullmatch("".join(shown), forms), printed


@pytest.mark.usefixtures("_elsewhere")
def test_first_command_reaches_documented_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = [example for example in EXAMPLES if example.command == "nnopt run"]
    number = re.compile(r"^ +(.* accuracy|test loss|parameters) +([\d.,]+)", re.M)
    expected = dict(number.findall("\n".join(shown.output)))
    actual = dict(number.findall(run("nnopt run", capsys)))
    assert len(expected) == 5
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(float(value), abs=0.02), name


def test_readme_lists_every_command() -> None:
    verbs = set(re.findall(r"^\| `nnopt ([\w-]+)", README, re.M))
    assert verbs == {*VERBS, "version"}


@pytest.mark.parametrize("group", sorted({x.parent.name for x in REPOSITORY.glob("conf/*/*.yaml")}))
def test_readme_lists_files_of_group(group: str) -> None:
    (cell,) = re.findall(rf"^\| `{group}` \| (.*) \|$", README, re.M)
    files = {path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")}
    shown = set(re.findall(r"\w+", cell.rpartition(":")[2]))
    assert shown <= files
    assert shown == files or cell.endswith("...")
    default = re.findall(r"\*\*(\w+)\*\*", cell)
    if default and group != "regularizer" and group != "initializer":
        assert getattr(compose_config(), group).name == default[0]


def test_readme_lists_every_exit_code() -> None:
    cells = re.findall(r"^\| (\d[\d, ]*) \|", README, re.M)
    codes = {int(code) for cell in cells for code in cell.split(",")}
    classes = [x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, Exception)]
    assert codes == {0, 130, 143} | {kind.exit_code for kind in classes}  # type: ignore[attr-defined]


def test_files_named_in_readme_exist() -> None:
    names = re.findall(r"`((?:nnopt|tests|conf|docs|benchmarks|\.ci)/[\w./-]*)`", README)
    names += re.findall(r"^([\w./]+/[\w.]*) {2,}", README, re.M)  # files in the section Layout
    names += re.findall(r"python (\S+\.py)", README)
    assert len(names) > 30
    for name in names:
        is_invented = "NAME" in name or name == "conf/experiment/mine.yaml"
        assert is_invented or (REPOSITORY / name).exists(), name


def test_readme_steps_for_extensions_name_existing_code() -> None:
    """Every name in backticks in a step occurs in one of the files that the step mentions."""
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |^\n|^#)", README, re.M | re.S)
    assert len(steps) == 12
    for step in steps:
        files = [REPOSITORY / name for name in re.findall(r"`([\w/]+\.py)`", step)]
        if not files:
            continue
        text = "\n".join(x.read_text("utf-8") for x in files if x.is_file())
        for name in re.findall(r"`(_?[A-Za-z]\w+)(?:\([\w]*\))?`", step):
            assert name in text, (name, files)


def test_install_commands_in_readme_match_ci_and_pyproject() -> None:
    """The README has a command for users, and a command for developers that .ci/run also runs."""
    commands = [example.command for example in EXAMPLES]
    assert "pip install -c constraints.txt -e . && nnopt run" in commands
    (line,) = [command for command in commands if command.endswith("pytest")]
    install, _, test = line.partition(" && ")
    assert test == "pytest"
    ci = (REPOSITORY / ".ci" / "run").read_text("utf-8").splitlines()
    assert f"step {install}" in ci
    assert f"step {test}" in ci
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in re.findall(r"'\.\[(\w+)\]'", README):
        assert extra in project["optional-dependencies"]
    least = project["requires-python"].removeprefix(">=")
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (REPOSITORY / document).read_text("utf-8")
        assert re.findall(r"Python (\S+) or 3\.12", text) == [least], document


def test_pre_commit_commands_equal_commands_in_ci() -> None:
    ci = re.findall(r"^step (.*)", (REPOSITORY / ".ci" / "run").read_text("utf-8"), re.M)
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text("utf-8")
    entries = re.findall(r"entry: (.*)", hooks)
    tools = [command for command in ci if command.split()[0] in ("pytest", "ruff", "mypy")]
    assert [x for x in entries if "pytest" not in x] == [x for x in tools if x != "pytest"]
    assert [x for x in entries if x.startswith("pytest ")]
