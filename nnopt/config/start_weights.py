"""``initializer.from``: the weights with which a training starts, as part of its configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnopt.errors import ConfigError
from nnopt.io.paths import given_path
from nnopt.results.model_file import weights_sha256
from nnopt.results.run_folder import check_done, check_run
from nnopt.schema import Config


def with_start_weights(
    config: Config, container: Mapping[str, Any]
) -> tuple[Config, Mapping[str, Any]]:
    """Return a configuration with the hash of the weights of ``initializer.from``.

    Therefore, two points that start with different weights have different ids, and a resumed
    training notices other weights. The path becomes absolute.

    Raises:
        ConfigError: The folder is not that of a trained run, or its weights are others than those
            of ``initializer.from_sha256``.
        ModelError: The weights or their description are missing or damaged.
    """
    chosen = config.initializer
    if chosen.from_ is None:
        return config, container
    folder = given_path(chosen.from_, "initializer.from")
    given = f"initializer.from = {chosen.from_!r}"
    check_run(folder, given)
    check_done(folder, given)
    digest = weights_sha256(folder)
    if chosen.from_sha256 not in (None, digest):
        raise ConfigError(
            f"{given}: its best weights have the SHA-256 {digest}, but initializer.from_sha256 = "
            f"{chosen.from_sha256!r}; set initializer.from_sha256=null to start with them"
        )
    path = os.path.realpath(folder)  # outputs/latest will be a link to the new run
    section = {**container["initializer"], "from": path, "from_sha256": digest}
    chosen = replace(chosen, from_=path, from_sha256=digest)
    return replace(config, initializer=chosen), {**container, "initializer": section}
