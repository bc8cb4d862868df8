"""The steps at which weights are pruned, and the sparsity after each pruning."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from nnopt.schema import NoPruningConfig, PruningVariant, UnitPruningConfig, WeightPruningConfig

Active = WeightPruningConfig | UnitPruningConfig

GRADUAL_INTERVAL = 0.1
"""Default number of epochs between two prunings of the gradual schedule."""


@dataclass(frozen=True)
class Pruning:
    """One pruning. It takes place when ``step`` optimizer steps are complete."""

    step: int
    sparsity: float


def gradual_sparsity(final: float, progress: float) -> float:
    """Return s = s_f (1 - (1 - p)³) at the progress p from 0 to 1 (Zhu and Gupta 2017, eq. 1)."""
    return final * (1 - (1 - progress) ** 3)


def iterative_sparsity(final: float, pruned: int, rounds: int) -> float:
    """Return the sparsity after ``pruned`` of ``rounds`` prunings.

    Each pruning keeps the same fraction (1 - s)^(1 / rounds) of the remaining weights (Frankle and
    Carbin 2019, section 2).
    """
    return final if pruned == rounds else 1 - (1 - final) ** (pruned / rounds)


def prunings(config: PruningVariant, epochs: int, steps_per_epoch: int) -> tuple[Pruning, ...]:
    """Return all prunings of a training, in the order of their steps.

    ``schedule_problems`` must have accepted the configuration. Of several prunings at the same
    step, only the last takes place.
    """
    if isinstance(config, NoPruningConfig):
        return ()
    times = _times(config, epochs)
    by_step = {
        round(time * steps_per_epoch): _sparsity(config, number, len(times))
        for number, time in enumerate(times, start=1)
    }
    return tuple(Pruning(step, sparsity) for step, sparsity in sorted(by_step.items()))


class ScheduleClock:
    """The position of each step in the learning rate schedule, which prunings may restart.

    With ``pruning.rewind_schedule``, the schedule is made for the steps before the first pruning.
    After each pruning, it continues at the step to which the weights are rewound.

    Args:
        config: The configuration of the pruning.
        epochs: The length of the training.
        steps_per_epoch: The number of steps of an epoch.
    """

    def __init__(self, config: PruningVariant, epochs: int, steps_per_epoch: int) -> None:
        self._steps: list[int] = []  # the steps of the prunings that restart the schedule
        if not isinstance(config, NoPruningConfig) and config.rewind_schedule:
            self._steps = [x.step for x in prunings(config, epochs, steps_per_epoch)]
            rewinds = isinstance(config.rewind, int)
            self._rewound = int(config.rewind) * steps_per_epoch if rewinds else 0

    @property
    def restarts(self) -> bool:
        """Whether the schedule starts again after each pruning."""
        return bool(self._steps)

    def length(self, steps: int) -> int:
        """Return the length of the schedule for a training of ``steps`` steps."""
        return self._steps[0] if self._steps else steps

    def position(self, step: int) -> int:
        """Return the position in the schedule after ``step`` steps."""
        done = bisect_right(self._steps, step)
        if not done:
            return step
        position = self._rewound + step - self._steps[done - 1]
        return min(position, self._steps[0] - 1)  # a phase may be a step longer than the first


def first_time(config: Active, epochs: int) -> float:
    """Return the start of the schedule in epochs; a gradual schedule prunes one interval later."""
    if config.start is not None:
        return config.start
    return epochs // 2 if config.from_ is None else 0


def _sparsity(config: Active, number: int, count: int) -> float:
    if isinstance(config, UnitPruningConfig):
        return config.sparsity
    if config.schedule == "gradual":
        return gradual_sparsity(config.sparsity, number / count)
    return iterative_sparsity(config.sparsity, number, count)


def _times(config: Active, epochs: int) -> list[float]:
    """Return the number of epochs before each pruning."""
    start = first_time(config, epochs)
    if isinstance(config, UnitPruningConfig) or config.schedule == "one_shot":
        return [start]
    if config.schedule == "iterative":
        interval = config.interval or start or 1
        fitting = int((epochs - start) / interval - 1e-9) + 1
        return [start + k * interval for k in range(config.rounds or max(fitting, 1))]
    interval = config.interval or GRADUAL_INTERVAL
    end = 0.75 * epochs if config.end is None else config.end
    count = int((end - start) / interval + 1e-9)
    return [start + k * interval for k in range(1, count + 1)]


def schedule_problems(
    config: PruningVariant, epochs: int, steps_per_epoch: int, steps: int
) -> Iterator[str]:
    """Yield the reasons why a schedule is not possible in a training of this length.

    The last epoch may be shorter than ``steps_per_epoch``.
    """
    if isinstance(config, NoPruningConfig):
        return
    if isinstance(config, WeightPruningConfig):
        problems = list(_key_problems(config, steps_per_epoch))
        yield from problems
        if problems:
            return
    start, times = first_time(config, epochs), _times(config, epochs)
    if not times:
        yield from _gradual_problems(config, epochs)
        return
    if round(times[-1] * steps_per_epoch) >= steps:
        yield (
            f"the last pruning, after {times[-1]:g} epochs, leaves no step of the "
            f"{steps / steps_per_epoch:g} epochs to train the remaining weights; set a smaller "
            "pruning.start, pruning.end, pruning.interval or pruning.rounds, or more epochs"
        )
    if isinstance(config.rewind, int) and config.rewind > start:
        yield (
            f"pruning.rewind = {config.rewind} is after pruning.start = {start:g}; set an epoch "
            f"up to {start:g}"
        )
    elif config.rewind_schedule:
        yield from _phase_problems(config, epochs, times)


def _phase_problems(config: Active, epochs: int, times: list[float]) -> Iterator[str]:
    """Yield the reason why the learning rate schedule does not fit the later phases.

    The schedule is made for the epochs before the first pruning. A phase after a rewinding repeats
    the schedule from the epoch of the rewinding to its end.
    """
    rewound = config.rewind if isinstance(config.rewind, int) else 0
    needed = times[0] - rewound
    phases = [end - start for start, end in pairwise([*times, epochs])]
    if needed <= 0 or any(abs(phase - needed) > 1e-6 for phase in phases):
        found = ", ".join(f"{phase:g}" for phase in dict.fromkeys(phases))
        yield (
            f"pruning.rewind_schedule = true repeats the schedule from epoch {rewound} to epoch "
            f"{times[0]:g} after each pruning, so {needed:g} epochs must follow each pruning, not "
            f"{found}; set pruning.start, pruning.interval or epochs"
        )


def _key_problems(config: WeightPruningConfig, steps_per_epoch: int) -> Iterator[str]:
    """Yield a line for each key that has no effect, and for an interval of less than a step."""
    used = {
        "one_shot": (),
        "iterative": ("interval", "rounds"),
        "gradual": ("end", "interval"),
    }[config.schedule]
    for key in ("end", "interval", "rounds"):
        value = getattr(config, key)
        if value is not None and key not in used:
            yield (
                f"pruning.{key} = {value:g} has no effect with pruning.schedule = "
                f"{config.schedule!r}; set pruning.{key}=null"
            )
    if config.interval is not None and config.interval * steps_per_epoch < 1:
        yield (
            f"pruning.interval = {config.interval:g} epochs is shorter than a step; set at least "
            f"{1 / steps_per_epoch:.3g}"
        )
    if config.gradient_batches != 1 and config.name != "gradient":
        yield (
            f"pruning.gradient_batches = {config.gradient_batches} has no effect with pruning.name "
            f"= {config.name!r}; set it to 1"
        )
    if config.control == "random_mask" and config.name == "random":
        yield (
            "pruning.control = 'random_mask' has no effect with pruning.name = 'random'; set "
            "pruning.control=none"
        )
    elif config.control == "random_mask" and config.rewind == "none" and used:
        yield (
            "pruning.control = 'random_mask' would keep weights that an earlier pruning has set to "
            "zero; set pruning.rewind=initial or pruning.schedule=one_shot"
        )


def _gradual_problems(config: Active, epochs: int) -> Iterator[str]:
    """Yield the reason why a gradual schedule prunes nothing."""
    assert isinstance(config, WeightPruningConfig)
    start = first_time(config, epochs)
    end = 0.75 * epochs if config.end is None else config.end
    if end <= start:
        yield f"pruning.end = {end:g} is not after pruning.start = {start:g}; set a larger end"
    else:
        yield (
            f"pruning.interval = {config.interval or GRADUAL_INTERVAL:g} epochs is longer than the "
            f"time from pruning.start = {start:g} to pruning.end = {end:g}, so nothing is pruned; "
            f"set at most {end - start:g}"
        )
