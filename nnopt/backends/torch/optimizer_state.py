"""The state of a ``torch.optim`` optimizer as named arrays, and its restoration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from nnopt.backends.torch.muon import Muon
from nnopt.backends.torch.schedule_free import ScheduleFree

GROUP_NUMBERS = ("k", "weight_sum", "lr_max")
"""Keys of parameter groups whose values, all numbers, change in a step of Schedule-Free."""

STATE_KEYS = {
    "SGD": ("momentum_buffer",),
    "RMSprop": ("step", "square_avg"),
    "Adagrad": ("step", "sum"),
    "Adadelta": ("step", "square_avg", "acc_delta"),
    "Adam": ("step", "exp_avg", "exp_avg_sq"),
    "NAdam": ("step", "mu_product", "exp_avg", "exp_avg_sq"),
    "Lion": ("m",),
    "Muon": ("m",),
    "SGDScheduleFree": ("z",),
    "AdamWScheduleFree": ("z", "exp_avg_sq"),
}
"""Class of an optimizer -> keys of the state of a parameter after the first step."""

OPTIONAL_KEYS = {
    "RMSprop": {"momentum": "momentum_buffer", "centered": "grad_avg"},
    "Adam": {"amsgrad": "max_exp_avg_sq"},
}
"""Class of an optimizer -> option -> key of the state that exists only if the option is used."""

SCALARS = {"step": "float32", "mu_product": "float64"}
"""Key of a state that is one number on the CPU -> type of the number."""

Named = Mapping[str, nn.Parameter]
"""Full name -> parameter."""


def optimizer_state(optimizer: optim.Optimizer, named: Named) -> dict[str, Tensor]:
    """Return the state of parameters ("optimizer/KEY/NAME") and groups ("optimizer/KEY/INDEX")."""
    tensors = {
        f"optimizer/{key}/{name}": value
        for _, state, _ in _states(optimizer)
        for name, parameter in named.items()
        for key, value in state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
    numbers = {
        f"optimizer/{key}/{index}": torch.tensor(group[key], dtype=torch.float64)
        for index, group in enumerate(optimizer.param_groups)
        for key in GROUP_NUMBERS
        if key in group
    }
    return tensors | numbers


def expected_state(
    optimizer: optim.Optimizer, named: Named, found: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return arrays with the names, shapes and types of a valid state.

    Most optimizers create the state of a parameter at the first step. Therefore, no state is
    expected if ``found``, the arrays of a checkpoint, contain none. The state of an optimizer that
    nnopt does not know, such as that of a plug-in, is accepted as it is.
    """
    expected: dict[str, NDArray[Any]] = {}
    for kind, _, groups in _states(optimizer):
        own = _own_parameters(groups, named)
        if kind not in STATE_KEYS:
            expected |= {entry: x for entry, x in found.items() if _parse(entry)[1] in own}
            continue
        has_state = any(name in own for _, name in map(_parse, found))
        for key in _state_keys(kind, groups[0]) if has_state else ():
            for name, parameter in own.items():
                shape = () if key in SCALARS else tuple(parameter.shape)
                dtype = SCALARS.get(key, str(parameter.dtype).removeprefix("torch."))
                expected[f"optimizer/{key}/{name}"] = np.broadcast_to(np.zeros((), dtype), shape)
    for index, group in enumerate(optimizer.param_groups):
        numbers = [key for key in GROUP_NUMBERS if key in group]
        expected |= {f"optimizer/{key}/{index}": np.zeros(()) for key in numbers}
    return expected


def load_optimizer_state(
    optimizer: optim.Optimizer, named: Named, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Restore a state that has the names, shapes and types of ``expected_state``."""
    for _, state, groups in _states(optimizer):
        own = _own_parameters(groups, named)
        is_fused = any(group.get("fused") for group in groups)
        state.clear()
        for entry, array in arrays.items():
            key, name = _parse(entry)
            if name in own:
                state[own[name]][key] = _tensor(key, array, own[name], is_fused)
    for index, group in enumerate(optimizer.param_groups):
        for key in GROUP_NUMBERS:
            if key in group:
                group[key] = type(group[key])(arrays[f"optimizer/{key}/{index}"])


def _states(optimizer: optim.Optimizer) -> list[tuple[str, dict[Any, Any], list[dict[str, Any]]]]:
    """Return class, state and groups of the optimizer and, for Muon, also of its Adam."""
    if isinstance(optimizer, Muon):
        groups, adam = optimizer.param_groups[:1], optimizer.adam
        return [("Muon", optimizer.state, groups), ("Adam", adam.state, adam.param_groups)]
    inner = optimizer.inner if isinstance(optimizer, ScheduleFree) else optimizer
    is_known = type(inner).__module__.partition(".")[0] in ("torch", "nnopt", "schedulefree")
    kind = type(inner).__name__ if is_known else ""
    return [(kind, optimizer.state, optimizer.param_groups)]


def _state_keys(kind: str, group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a parameter's state, given the options in ``group``."""
    optional = OPTIONAL_KEYS.get(kind, {})
    return (*STATE_KEYS[kind], *(key for option, key in optional.items() if group[option]))


def _own_parameters(groups: list[dict[str, Any]], named: Named) -> Named:
    own = {id(parameter) for group in groups for parameter in group["params"]}
    return {name: parameter for name, parameter in named.items() if id(parameter) in own}


def _parse(entry: str) -> tuple[str, str]:
    """Return KEY and NAME of the entry "optimizer/KEY/NAME"; two empty texts for other entries."""
    kind, _, rest = entry.partition("/")
    key, _, name = rest.partition("/")
    return (key, name) if kind == "optimizer" else ("", "")


def _tensor(key: str, array: NDArray[Any], parameter: nn.Parameter, is_fused: bool) -> Tensor:
    """Return a restored tensor with the memory layout of its parameter.

    A single number is on the CPU, except in fused optimizers.
    """
    if key in SCALARS or array.shape != parameter.shape:
        device = "cpu" if key in SCALARS and not is_fused else parameter.device
        return torch.tensor(array, device=device)
    return torch.empty_like(parameter).detach().copy_(torch.from_numpy(array))
