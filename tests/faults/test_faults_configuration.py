"""Wrong configurations, which nnopt refuses before it writes any file.

A case of ``WRONG_WORDS`` has the overrides of one command, and texts that its error must contain.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from commands import Command

from nnopt.config.hydra import composing

WRONG_WORDS: dict[str, tuple[list[str], list[str]]] = {
    "unknown keys": (
        ["optimizer.lrr=1", "optm.lr=1", "epoch=3", "model=x"],
        [
            "'optimizer.lrr'; did you mean 'optimizer.lr'?",
            "'optm.lr'; did you",
            "'epochs'?",
            "'model'",
        ],
    ),
    "unknown files": (
        ["optimizer=adm", "dataset=mnits", "experiment=mnist"],
        ["did you mean 'adam'?", "did you mean 'mnist'?", "did you mean 'mnist_mlp'?"],
    ),
    "wrong types": (
        [
            "optimizer.lr=abc",
            "epochs=1.5",
            "seed=true",
            "regularizer.augmentation.flip=maybe",
            "architecture.hidden=[1,a]",
        ],
        [
            "optimizer.lr = 'abc': needs a number",
            "epochs = 1.5: needs a whole number",
            "seed = True: needs a whole number",
            "flip = 'maybe': needs true or false",
            "architecture.hidden[1] = 'a': needs a whole number",
        ],
    ),
    "whole numbers as decimals": (
        ["epochs=1.0", "batch_size=32.0"],
        ["epochs = 1.0: needs a whole number; write 1", "write 32"],
    ),
    "out of range": (
        [
            "optimizer.lr=-0.1",
            "epochs=-3",
            "batch_size=0",
            "optimizer.momentum=1",
            "regularizer.dropout=1.5",
            "dataset.validation.fraction=1",
            "regularizer.label_smoothing=-1",
        ],
        [
            "optimizer.lr = -0.1: needs to be at least 0",
            "epochs = -3",
            "batch_size = 0",
            "optimizer.momentum = 1",
            "regularizer.dropout = 1.5",
            "dataset.validation.fraction = 1",
            "regularizer.label_smoothing = -1",
        ],
    ),
    "not finite": (
        ["optimizer.lr=nan", "regularizer.l2=inf", "schedule.warmup_epochs=-inf"],
        [
            "optimizer.lr = nan: needs a finite",
            "regularizer.l2 = inf",
            "schedule.warmup_epochs = -inf",
        ],
    ),
    "of one optimizer": (
        ["optimizer=adam", "optimizer.beta2=1", "optimizer.epsilon=0"],
        ["optimizer.beta2 = 1", "optimizer.epsilon = 0"],
    ),
    "groups that do not divide": (
        [
            "architecture=layers",
            "architecture.layers=[{dense: 64}, {group_norm: 5}, {dense: classes}]",
        ],
        ["group"],
    ),
    "too large": (
        ["epochs=100000000000000000000000", "seed=18446744073709551616", "max_steps=-1"],
        ["epochs = 1", "seed = 18446744073709551616", "max_steps = -1"],
    ),
    "too wide": (["architecture.hidden=[1000000000]"], ["architecture.hidden[0] = 1000000000"]),
    "too many parameters": (
        ["architecture.hidden=[1000000,1000000]"],
        ["1,000,007,000,003 parameters need 16,000 GB"],
    ),
    "added and left out": (
        ["+new=1", "++other=2", "~optimizer.lr"],
        ["unknown key 'new'", "unknown key 'other'", "'optimizer.lr' cannot be left out"],
    ),
    "empty": (["dataset="], ["dataset = ''", "allowed: "]),
    "all missing": (
        ["dataset=csv", "epochs=0", "optm=3"],
        ["set it with dataset.train=", "epochs = 0", "unknown key 'optm'"],
    ),
    "missing value": (["seed=???"], ["seed: "]),
    "no such backend": (["backend=jax"], ["backend = 'jax'", "allowed: numpy, torch"]),
    "Nesterov without momentum": (
        ["optimizer=nesterov", "optimizer.momentum=0"],
        ["optimizer.name = 'nesterov'", "optimizer.momentum"],
    ),
    "batch norm of one sample": (
        ["regularizer.norm=batch", "batch_size=1"],
        ["batch_size = 1", "batch"],
    ),
    "crops of features": (
        ["regularizer.augmentation.crop=4"],
        ["regularizer.augmentation.crop = 4", "dataset.name = 'spiral'"],
    ),
    "warm-up longer than training": (
        ["schedule.warmup_epochs=100", "epochs=2"],
        ["schedule.warmup_epochs = 100"],
    ),
    "patience without validation data": (
        ["early_stopping.patience=3", "dataset.validation.source=none"],
        ["early_stopping.patience", "dataset.validation.source = 'none'"],
    ),
    "no patience": (["early_stopping.patience=0"], ["early_stopping.patience = 0"]),
    "secret": (["name=${oc.env:SECRET}"], ["name: ", "'SECRET' not found"]),
    "interpolation in a circle": (
        ["seed=${epochs}", "epochs=${seed}"],
        ["Recursive interpolation"],
    ),
    "target": (["+_target_=os.system"], ["unknown key '_target_'"]),
}


@pytest.mark.parametrize(("overrides", "fragments"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_run_with_wrong_arguments_is_refused(
    attempt: Command, workplace: Path, backend: str, overrides: list[str], fragments: list[str]
) -> None:
    own = [] if any(word.startswith("backend=") for word in overrides) else [f"backend={backend}"]
    attempt("run", *own, *overrides).is_refused(2, *fragments)
    assert list(workplace.iterdir()) == []


def test_run_with_repeated_key_gives_a_warning(attempt: Command, workplace: Path) -> None:
    attempt("run", "--cfg", "job", "epochs=1", "epochs=2").is_done(
        "epochs=1 is overridden by epochs=2", "epochs: 2\n"
    )


def test_run_with_option_of_other_backend_is_refused(attempt: Command, workplace: Path) -> None:
    attempt("run", "backend.precision=bf16").is_refused(2, "it belongs to backend=torch")
    attempt("run", "backend=torch", "backend.device=cuda:99").is_refused(2, "backend.device")
    attempt("run", "backend.device=cuda").is_refused(2, "needs backend=torch")


WRONG_FILES: dict[str, tuple[str | bytes, str]] = {
    "tab": ("optimizer:\n\tlr: 1\n", "line 2, column 1"),
    "indent": ("optimizer:\n  lr: 1\n seed: 1\n", "line 3, column 2"),
    "duplicate key": ("seed: 1\nseed: 2\n", "line 2: the key 'seed' occurs twice"),
    "Latin-1": ("seed: 1 # größe\n".encode("latin-1"), "line 1: byte 0xf6 is not UTF-8"),
    "octal": ("epochs: 010\n", "line 1: YAML reads 010 as octal"),
    "base 60": ("epochs: 1:30\n", "line 1: YAML reads 1:30 in base 60"),
    "no": ("epochs: no\n", "epochs = False: needs a whole number"),
    "tag": ("name: !!python/object/apply:os.system [touch x]\n", "line 1: the tag"),
    "target": ("optimizer: {_target_: os.system}\n", "unknown key 'optimizer._target_'"),
    "secret": ("seed: 1\nname: ${oc.env:SECRET}\n", "mine.yaml, line 2)"),
    "growing aliases": (
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c]\n",
        "more than 3,000 values",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_run_with_wrong_file_is_refused_with_line_number(
    attempt: Command, workplace: Path, content: str | bytes, message: str
) -> None:
    file = workplace / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    attempt("run", "experiment=mine").is_refused(2, "conf/experiment/mine.yaml", message)
    assert [path.name for path in workplace.iterdir()] == ["conf"]


def test_sweep_with_wrong_point_is_refused_before_the_first_point(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = ["optimizer.lr=0.1,abc,0.2,-1", "epochs=1,0", f"backend={backend}"]
    attempt("run", "-m", *overrides).is_refused(2, "lr = 'abc'", "lr = -1", "epochs = 0")
    assert list(workplace.iterdir()) == []


KEYS = (
    *("name", "seed", "epochs", "plots", "optimizer", "optimizer.lr", "architecture.hidden"),
    *("architecture.layers", "dataset", "backend", "experiment", "ablation", "data.root"),
    *("hydra.run.dir", "hydra.mode", "hydra/launcher", "hydra/sweeper", "hydra.sweeper.params"),
    *("hydra.sweeper.grids", "hydra.launcher.workers", "hydra.searchpath", "hydra", "", "a", ".."),
    *("optimizer.lr.x", "dataset.name", "early_stopping"),
)
VALUES = (
    *("", "null", "true", "3", "-1", "1e400", "nan", "${seed}", "${nope}", "${", "}", "[", "[1,2]"),
    *(
        "{}",
        "{a: 1}",
        "{a: }",
        "[{dense: 4}]",
        "1,2",
        "a,b",
        ",",
        "range(3)",
        "range(0)",
        "glob(*)",
    ),
    *("interval(0,1)", "glob([a],[b])", "choice()", "sort(1,a)", "shuffle(a)", "tag()", "int(a)"),
    *(
        "adam",
        "l2_spiral",
        "optuna",
        "../../x",
        "~",
        "\\",
        "'",
        '"',
        "'a",
        "ä",
        "\x00",
        "\n",
        "\udcff",
    ),
    *("a" * 300, "9" * 400, "???", "!!x", "MULTIRUN", "${oc.decode:'['}", "${.lr}", "${optimizer}"),
    *("${hydra:job.name}", "${now:%Y}", "a=b", "a:b", "a@b", "#x", "%s", "{0}"),
)
COMMANDS = (["run", "--cfg", "job"], ["describe"], ["run", "--help"], ["run", "-m", "epochs=-1"])


@pytest.mark.slow
def test_command_with_unusual_arguments_succeeds_or_prints_the_reason(
    attempt: Command, workplace: Path
) -> None:
    """``attempt`` checks that each command succeeds or prints the reason."""
    draw = random.Random(0)
    for _ in range(60):
        overrides = [
            draw.choice(("", "", "", "+", "~")) + draw.choice(KEYS) + "=" + draw.choice(VALUES)
            for _ in range(draw.choice((1, 1, 2)))
        ]
        attempt(*draw.choice(COMMANDS), *overrides)
    assert list(workplace.iterdir()) == []


@pytest.mark.slow
def test_run_with_long_wrong_file_is_refused_within_seconds(
    attempt: Command, workplace: Path
) -> None:
    """The file has nearly the maximum number of values that nnopt accepts."""
    nodes = "name: mine\nseed: -1\nx: [" + ", ".join("1" for _ in range(2_900)) + "]\n"
    file = workplace / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(nodes)
    with composing():
        pass  # import Hydra before the time is measured
    start = time.process_time()
    attempt("run", "experiment=mine").is_refused(2, "unknown key 'x'", "seed = -1")
    assert time.process_time() - start < 3
