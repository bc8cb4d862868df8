"""The keys of ``conf/hydra/launcher/``, which determine how the points of a sweep run."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nnopt.schema.range import Entries, Range, Text

PATH = Text(r"[^\x00-\x1f\x7f\x85\u2028\u2029]+", "a path without line breaks")
DEVICE = Text(r"[A-Za-z0-9_./:-]+", "letters, digits and _ . / : -")
ADDRESS = Text(r"[A-Za-z0-9_./:@\[\]-]+", "letters, digits and _ . / : @ [ ] -")
PARTITION = Text(r"[A-Za-z0-9_.,@+-]+", "letters, digits and _ . , @ + -")
OPTION = Text(
    r"[A-Za-z0-9_.,:=+@&|*?()\[\]-]+", "letters, digits and _ . , : = + @ & | * ? ( ) [ ] -"
)
"""The patterns of five texts that are passed to scripts and other programs.

The patterns exclude line breaks. All patterns except ``PATH`` also exclude quotes.
"""

SBATCH_OPTIONS = frozenset(
    {
        "account", "acctg-freq", "begin", "cluster-constraint", "clusters", "comment",
        "constraint", "contiguous", "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu",
        "deadline", "delay-boot", "dependency", "distribution", "exclude", "exclusive",
        "extra-node-info", "gpu-bind", "gpu-freq", "gpus", "gpus-per-socket", "gpus-per-task",
        "gres", "gres-flags", "hint", "hold", "kill-on-invalid-dep", "licenses", "mail-type",
        "mail-user", "mcs-label", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus",
        "network", "nice", "no-requeue", "nodelist", "overcommit", "oversubscribe", "prefer",
        "priority", "qos", "requeue", "reservation", "sockets-per-node", "spread-job",
        "switches", "thread-spec", "threads-per-core", "tmp", "use-min-nodes", "wait-all-nodes",
        "wckey",
    }
)  # fmt: skip
"""The allowed options of sbatch, which request resources.

Options that run a command, or that name a file, a folder or environment variables, are not allowed,
because ``sweep.json`` may come from another person.
"""


@dataclass(frozen=True)
class SequentialConfig:
    """The points run one after another in the process of the sweep."""

    name: Literal["sequential"]


@dataclass(frozen=True)
class PoolConfig:
    """Processes on this machine. Each uses one of ``devices``, if there are any."""

    name: Literal["pool"]
    workers: Annotated[int | None, Range(minimum=1, maximum=1024)]
    threads: Annotated[int | None, Range(minimum=1, maximum=1024)]
    timeout: Annotated[float | None, Range(above=0)]  # seconds for one point
    devices: Annotated[tuple[int | str, ...] | None, DEVICE]


@dataclass(frozen=True)
class RayConfig:
    """Tasks on a Ray cluster. If ``address`` is None, a cluster is started on this machine."""

    name: Literal["ray"]
    address: Annotated[str | None, ADDRESS]
    workers: Annotated[int | None, Range(minimum=1, maximum=100_000)]
    threads: Annotated[int, Range(minimum=1, maximum=1024)]
    gpus: Annotated[float, Range(minimum=0, maximum=1024)]
    timeout: Annotated[float | None, Range(above=0)]


@dataclass(frozen=True)
class SubmititConfig:
    """Jobs of SLURM, or of submitit's local executor."""

    name: Literal["submitit"]
    cluster: Literal["slurm", "local"]
    workers: Annotated[int, Range(minimum=1, maximum=100_000)]
    threads: Annotated[int, Range(minimum=1, maximum=1024)]
    gpus: Annotated[int, Range(minimum=0, maximum=1024)]
    memory: Annotated[float | None, Range(above=0)]  # GB for each job
    partition: Annotated[str | None, PARTITION]
    options: Annotated[Any, Entries(SBATCH_OPTIONS, OPTION)]  # option of sbatch -> value
    timeout: Annotated[float, Range(above=0)]
    folder: Annotated[str | None, PATH]


LauncherConfig = SequentialConfig | PoolConfig | RayConfig | SubmititConfig
