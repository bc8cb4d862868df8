"""progress=curves and progress=none on terminals of several sizes, in pipes, and after errors."""

from __future__ import annotations

import io
import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from test_console import ROW, on_terminal, without_codes

from nnopt.cli.run import _note_missing_curves
from nnopt.config.compose import Plan
from nnopt.sweeps.search.display import SearchProgress
from nnopt.sweeps.search.search import SearchRun
from nnopt.terminal import live_display
from nnopt.terminal import safe_stream as stream
from nnopt.terminal.live_display import (
    REFRESH_FRACTION,
    LiveDisplay,
    ProgressMode,
    TrainingProgress,
    no_curves_reason,
)
from nnopt.terminal.safe_stream import Stream

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """A standard output whose ``isatty`` returns True."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace standard output by a terminal of 80 columns and 24 lines, and return it.

    The environment variables COLUMNS and LINES change the size.
    """
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    shown = Terminal()
    streams = SimpleNamespace(stdout=shown, stderr=sys.stderr)  # pytest would reset sys.stdout
    monkeypatch.setattr(stream, "sys", streams)
    return shown


def one_run() -> Plan:
    """Return a plan of one run with progress=curves."""
    points = [SimpleNamespace(config=SimpleNamespace(progress="curves"))]
    launcher = SimpleNamespace(name="sequential")
    return cast(Plan, SimpleNamespace(is_sweep=False, launcher=launcher, points=points))


def train(mode: ProgressMode = "curves", last: int = 8) -> None:
    """Show the epochs 1 to ``last`` of 8, and refresh the display after each.

    Raises KeyboardInterrupt if ``last`` < 8.
    """
    with TrainingProgress(8, 20, mode=mode) as run:
        for epoch in range(1, last + 1):
            row = replace(ROW, epoch=epoch, step=20 * epoch, train_loss=1 / epoch)
            run.epoch(row, best=False)
            run._next_refresh = 0.0
        if last < 8:
            raise KeyboardInterrupt


def lines_of(sent: str) -> list[str]:
    return [line.rstrip() for line in re.split(r"[\r\n]+", without_codes(sent))]


def test_live_curves_are_above_the_bar_and_remain_at_the_end(terminal: Terminal) -> None:
    train()
    lines = lines_of(terminal.getvalue())
    legends = [i for i, line in enumerate(lines) if line.endswith("▀▀▀ validation")]
    bars = [i for i, line in enumerate(lines) if "━" in line]
    assert bars[0] < legends[0]  # no curves before the first epoch
    assert [i + 1 for i in legends[:-1]] == bars[-len(legends) + 1 :]
    assert len(legends) >= 8
    assert lines[legends[-1] + 1 :] == [
        "epoch 8/8  loss 0.125 val 1.25  acc 0.5000 val 0.4000  lr 0.1",
        "",
    ]
    shown = "\n".join(lines[bars[-1] + 2 : legends[-1]])
    assert "loss" in shown
    assert "⠢" in shown


@pytest.mark.parametrize(
    ("columns", "lines", "drawn"), [(80, 24, 21), (120, 40, 30), (40, 12, 9), (300, 80, 30)]
)
def test_live_curves_use_the_terminal_up_to_a_maximum_size(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int, drawn: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    train()
    sent = terminal.getvalue()
    climbs = re.findall(r"(?:\x1b\[1A|\x1b\[2K)+", sent)  # cursor moves to the first redrawn line
    assert max(climb.count("\x1b[1A") for climb in climbs) in (drawn + 1, drawn + 2)
    assert max(map(len, lines_of(sent)[:-2])) <= columns


def test_live_curves_clear_the_screen_after_a_resize(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = LiveDisplay("curves")
    shown.add_epoch(ROW)
    for columns, wiped in ((80, False), (80, False), (60, True), (30, True), (60, True)):
        monkeypatch.setenv("COLUMNS", str(columns))
        display = Stream(terminal).rich()
        terminal.truncate(0)
        shown._clear_after_resize(display)
        assert ("\x1b[2J" in terminal.getvalue()) == wiped
        text = shown.curves(display)
        assert (text is None) == (columns < 40)
        assert text is None or max(map(len, text.plain.splitlines())) <= columns


def test_live_curves_restore_the_terminal_after_interruption(terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(last=5)
    sent = terminal.getvalue()
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # the cursor is shown again
    assert "\x1b[?1049h" not in sent  # no alternate screen is used
    assert lines_of(sent)[-2].startswith("epoch 5/8  loss 0.2 ")


@pytest.mark.parametrize(
    ("environment", "encoding", "reason"),
    [
        ({"TERM": "dumb"}, "utf-8", "the output is not a terminal that can be redrawn"),
        ({"COLUMNS": "39"}, "utf-8", "the terminal has 39 columns and 24 lines, but curves need"),
        ({"LINES": "11"}, "utf-8", "the terminal has 80 columns and 11 lines, but curves need"),
        ({}, "latin-1", "the output's encoding, latin-1, lacks the characters for curves"),
    ],
)
def test_live_curves_on_unsuitable_terminal_are_replaced_by_bar(
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    encoding: str,
    reason: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal.encoding = encoding  # type: ignore[misc]
    _note_missing_curves(one_run())
    assert terminal.getvalue().startswith(f"note: progress=curves: {reason}")
    train()
    assert "validation" not in terminal.getvalue()
    first = "acc 0.5000" if "COLUMNS" in environment else "loss 0.125"
    shown = " ".join(without_codes(terminal.getvalue()).split())
    assert f"epoch 8/8 {first} val" in shown


def test_live_curves_on_suitable_terminal_print_no_note(terminal: Terminal) -> None:
    assert no_curves_reason() is None
    _note_missing_curves(one_run())
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("mode", ["curves", "bar", "none"])
def test_live_curves_of_sweep_show_the_running_point(
    nnopt: Run, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, mode: ProgressMode
) -> None:
    """Curves are between the point's name and the progress line. One line per point remains."""
    monkeypatch.setattr(LiveDisplay, "is_due", lambda self: True)
    small = ["epochs=3", "dataset.samples_per_class=20", "plots=false", f"progress={mode}"]
    assert nnopt("run", *small, "-m", "seed=4,5") == 0
    lines = lines_of(terminal.getvalue())
    names = [line for line in lines if re.fullmatch(r"\[[12]\] seed=[45]", line)]
    assert set(names) == ({"[1] seed=4", "[2] seed=5"} if mode == "curves" else set())
    assert names == sorted(names)
    assert sum("▀▀▀ validation" in line for line in lines) == len(names)
    assert any("pending" in line for line in lines) == (mode != "none")
    assert [line.split()[1] for line in lines if "test accuracy" in line] == ["seed=4", "seed=5"]
    assert not any(line.startswith("epoch 3/3") for line in lines)


def test_live_curves_of_search_show_the_running_trial(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveDisplay, "is_due", lambda self: True)
    run = SimpleNamespace(
        study=SimpleNamespace(get_trials=lambda **_: []),
        settings=SimpleNamespace(metric="test_accuracy", trials=4),
        finished=deque(),
        lost=[],
        latest=(3, ("optimizer.lr=0.12345678", "seed=0")),
    )
    with SearchProgress(cast(SearchRun, run), "curves") as shown:
        for epoch in (1, 2, 3):
            shown.epoch(replace(ROW, epoch=epoch), False)
    lines = lines_of(terminal.getvalue())
    legends = sum("▀▀▀ validation" in line for line in lines)
    assert lines.count("[3] lr=0.1235 seed=0") == legends >= 3
    assert "4 to go  epoch 3" in lines


def test_live_curves_restart_with_another_point(terminal: Terminal) -> None:
    """Another seed of a trial has the same name, but its epochs start at 1 again."""
    display, drawn = Stream(terminal).rich(), LiveDisplay("curves")

    def first_and_last(name: str, epoch: int) -> tuple[str, int]:
        drawn.add_epoch(replace(ROW, epoch=epoch), name)
        text = drawn.curves(display)
        assert text is not None
        lines = text.plain.splitlines()
        return lines[0].rstrip(), max(map(int, re.findall(r"\d+", lines[-2])))

    assert first_and_last("a", 1) == ("a", 1)
    assert first_and_last("a", 2) == ("a", 2)
    assert first_and_last("b", 3) == ("b", 3)
    assert first_and_last("b", 1) == ("b", 1)
    assert len(drawn._rows) == 1
    assert first_and_last("long " * 40, 1)[0] == ("long " * 40)[:79].rstrip() + "…"


def test_lr_search_within_a_sweep_draws_nothing(
    nnopt: Run, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["epochs=1", "dataset.samples_per_class=20", "plots=false", "optimizer.lr=auto"]
    assert nnopt("run", *small, "-m", "seed=4,5") == 0
    sent = without_codes(terminal.getvalue())
    assert "learning rate" not in sent
    assert sent.count("found in") == 2
    assert sent.count("test accuracy") == 2


def test_live_curves_without_plotext_are_refused_before_the_run(
    nnopt: Run, workplace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnopt.recipe.prepare.find_spec", lambda name: None)
    assert nnopt("run", "epochs=1", "progress=curves") == 2
    assert capsys.readouterr().err == (
        "nnopt: error: progress = 'curves' needs the package plotext, which is not installed; "
        "run: pip install 'nnopt[curves]', or set progress=bar\n"
    )
    assert not Path("outputs").exists()


def test_live_curves_of_points_in_other_processes_print_a_note(
    nnopt: Run, workplace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = one_run()
    plan.is_sweep, plan.launcher.name = True, "pool"  # type: ignore[misc]
    _note_missing_curves(plan)
    assert "no point runs in this process" in capsys.readouterr().out


def test_live_curves_in_pipe_print_one_note_per_sweep(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    small = ["epochs=2", "dataset.samples_per_class=20", "plots=false"]
    assert nnopt("run", *small, "progress=curves", "-m", "seed=0,1") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.count("note: progress=curves") == 1
    assert output.out.startswith("note: progress=curves")
    assert output.out.count("test accuracy") == 2


def test_progress_none_prints_only_the_summary(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    small = ["epochs=2", "dataset.samples_per_class=20", "plots=false"]
    assert nnopt("run", *small, "progress=none") == 0
    output = capsys.readouterr().out
    assert "epoch 1/2" not in output
    assert "test accuracy" in output


def test_progress_none_draws_nothing_on_a_terminal(terminal: Terminal) -> None:
    train("none")
    assert terminal.getvalue() == ""


def test_drawing_of_display_takes_a_small_fraction_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The display is refreshed less often if a refresh takes long."""
    now = 0.0
    spent = 0.0

    class Slow:
        task_ids = (0,)
        console = None

        def update(self, *_: object, **__: object) -> None: ...

        def refresh(self) -> None:
            nonlocal now, spent
            now, spent = now + 0.3, spent + 0.3

    monkeypatch.setattr(live_display.time, "monotonic", lambda: now)
    run = TrainingProgress(1000, 20)
    run._progress = Slow()  # type: ignore[assignment]
    for step in range(20_000):
        now += 0.01
        run.step(step + 1)
    assert 0 < spent / now <= REFRESH_FRACTION * 1.05
    assert spent / now > REFRESH_FRACTION * 0.8


def test_live_curves_that_fail_do_not_stop_training(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr("nnopt.terminal.plotext_curves.curves", fail)
    drawn = LiveDisplay("curves")
    drawn.add_epoch(ROW)
    assert drawn.curves(Stream(terminal).rich()) is None
    assert "planted" in caplog.text


def test_live_curves_are_drawn_on_a_pseudo_terminal(workplace: Path) -> None:
    """Before the run, neither plotext nor tensorboard is imported."""
    program = """
import sys
import nnopt.recipe.run
from nnopt.cli.main import run_verb
assert not {"plotext", "tensorboard"} & set(sys.modules)
small = ["epochs=2", "dataset.samples_per_class=20", "plots=false"]
assert run_verb(["run", *small, "progress=curves"]) == 0
"""
    text = without_codes(on_terminal(program, workplace, 80))
    curves, last = text.split("epoch 2/2  loss")
    assert curves.rindex("epoch ") < curves.rindex("▀▀▀ validation")
    assert "test accuracy" in last
