"""Work on a Ray cluster: units of work of seconds to minutes each, distributed by Ray Data.

Every machine sees the same files under the same paths, and works in the folder in which the command was started. A unit
either only returns something or writes files atomically, so it may be done twice: if a worker dies, Ray gives its units
to another one. Results arrive in any order, with the number of their unit; the caller orders them and writes the final
files.

Ray is imported only when a cluster is connected to, and nowhere else in the package.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import re
import secrets
import socket
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from deepavfusion.version import __version__

CONNECT_SECONDS = 10.0
"""How long the head of a cluster may take to answer."""
LOCAL_STORE_BYTES = 128 * 2**20
"""Shared memory of a cluster on this machine; what is passed through it are rows of manifests."""

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Row = dict[str, Any]
"""Of a Ray data set: number and pickled unit on the way there; number, pickled result and what went wrong back."""

_PLACE = re.compile(r"(?:ray://)?([^\s:/\[\]]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")


class ClusterError(ValueError):
    """A cluster that cannot be used, or work that failed on it; one line."""


class Cluster:
    """A connection to a cluster."""

    def __init__(self, ray: ModuleType, outside: bool = False) -> None:
        self._ray, self._outside = ray, outside

    @property
    def num_cpus(self) -> int:
        """CPUs of all machines that are there now."""
        return int(self._ray.cluster_resources().get("CPU", 0))

    @property
    def num_gpus(self) -> int:
        """GPUs of all machines that are there now."""
        return int(self._ray.cluster_resources().get("GPU", 0))

    def map(
        self, function: Callable[[Unit], Result], units: Sequence[Unit], num_cpus: int, num_gpus: int = 0
    ) -> Generator[tuple[int, Result], None, None]:
        """Apply a function to units, each in a worker process of some machine.

        Args:
            function: at module level or a partial of one; it may be called again for a unit whose worker died.
            units: can be pickled, as can the results.
            num_cpus: of a worker while it does a unit.
            num_gpus: of a worker while it does a unit; with GPUs, CPUs are not counted.

        Yields:
            The number of a unit and its result, in the order in which they are done.

        Raises:
            ClusterError: the function raised an exception, or the cluster failed.
        """
        if not units:
            return
        rows = [{"number": number, "unit": pickle.dumps(unit)} for number, unit in enumerate(units)]
        answer = partial(_answer, function=function, folder=os.getcwd(), version=__version__)
        share = {"num_gpus": num_gpus} if num_gpus else {"num_cpus": num_cpus}
        answers = self._relayed(rows, answer, share) if self._outside else _answers(rows, answer, share)
        try:
            for row in answers:
                if row["error"]:
                    # The cause is shown by DEEPAVFUSION_TRACEBACK=1.
                    raise ClusterError(row["error"]) from RuntimeError(f"in the worker:\n{row['traceback']}")
                yield row["number"], pickle.loads(row["result"])
        except self._ray.exceptions.RayError as error:
            # What went wrong in a worker, such as a missing package, stands at the end of a traceback.
            lines = str(error).strip().splitlines()
            cause = lines[-1] if isinstance(error, self._ray.exceptions.RayTaskError) else lines[0]
            raise ClusterError(f"--ray: the cluster failed: {cause.strip()}") from error

    def _relayed(self, rows: Sequence[Row], answer: Callable[[Row], Row], share: dict[str, int]) -> Iterator[Row]:
        relay = self._ray.remote(num_cpus=0)(_Relay).remote(rows, answer, share)
        while (row := self._ray.get(relay.next.remote())) is not None:
            yield row


class _Relay:
    """In a worker: Ray Data's driver for a command outside the cluster, where Ray Data cannot work."""

    def __init__(self, rows: Sequence[Row], answer: Callable[[Row], Row], share: dict[str, int]) -> None:
        self.answers = _answers(rows, answer, share)

    def next(self) -> Row | None:
        return next(self.answers, None)


def _answers(rows: Sequence[Row], answer: Callable[[Row], Row], share: dict[str, int]) -> Iterator[Row]:
    """What a function answers to rows, as workers with a share of CPUs or GPUs are done."""
    from ray.data import DataContext, from_items

    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().execution_options.preserve_order = False
    # As many blocks as rows: Ray Data runs a task for each block and starts lost ones again.
    yield from from_items(list(rows), override_num_blocks=len(rows)).map(answer, **share).iter_rows()


def check_address(address: str | None) -> None:
    """Raise ValueError unless this is an address of a cluster, or None."""
    if address not in (None, "auto", "local") and not _PLACE.fullmatch(address):
        raise ValueError(f"ray {address!r} must be auto, local, host:port or ray://host:port")


@contextmanager
def connected(address: str, num_cpus: int = 1) -> Iterator[Cluster]:
    """Connect to a cluster.

    Args:
        address: `auto` for the one that this machine belongs to, `local` for a new one on this machine alone,
            `host:port` of the head for a machine of the cluster, `ray://host:port` for one outside it.
        num_cpus: that a unit will take.

    Raises:
        ClusterError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # errors are told here, in one line
    if address == "local":
        os.environ |= local_environment()
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError("--ray needs the extra: pip install 'deepavfusion[ray]'") from error
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
    else:
        _call(address)
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"--ray {address}: {_one_line(error)}") from error
    try:
        cluster = Cluster(ray, outside=address.startswith("ray://"))
        # A cluster of several machines may grow by itself, one machine does not: Ray would wait for ever.
        if address == "local" and num_cpus > cluster.num_cpus:
            raise ClusterError(
                f"--ray local: a unit takes {num_cpus} CPUs (--num_workers), this machine has {cluster.num_cpus}"
            )
        yield cluster
    finally:
        ray.shutdown()


def local_environment() -> dict[str, str]:
    """What a cluster on this machine is started with; read when ray is imported and when its processes start."""
    return {
        # No cluster of several machines: Ray then listens on the loopback interface alone, not on all.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Others on this machine keep out; Ray's own token would be left in the home folder.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # As nice as the command itself, not by 15 nicer: on a machine that does something else, that is standing still.
        "RAY_worker_niceness": "0",
    }


def _call(address: str) -> None:
    """See that something answers at an address before Ray tries, which takes minutes to give up."""
    place = _PLACE.fullmatch(address)
    if place is None:
        return
    try:
        socket.create_connection((place[1].strip("[]"), int(place[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--ray {address}: no answer from there ({error})") from error


def _answer(row: Row, function: Callable[[Any], Any], folder: str, version: str) -> Row:
    """In a worker: the result of a unit, or what went wrong in words."""
    answer = {"number": row["number"], "result": b"", "error": "", "traceback": ""}
    try:
        if version != __version__:
            raise ValueError(f"--ray: deepavfusion {__version__} is installed here, {version} where the command runs")
        _enter(folder)
        return answer | {"result": pickle.dumps(function(pickle.loads(row["unit"])))}
    except Exception as error:  # noqa: BLE001  told where the command runs; Ray would wrap it in pages of its own
        return answer | {"error": f"{_told(error)} (on {platform.node()})", "traceback": traceback.format_exc()}


def _enter(folder: str) -> None:
    """Work in the folder the command was started in, which relative paths are meant from."""
    if not os.path.isdir(folder):
        raise ValueError(
            f"--ray: {folder}, where the command was started, does not exist here; all machines must share it"
        )
    os.chdir(folder)


def _told(error: Exception) -> str:
    """What a user's mistake says; of a mistake of the program its kind too."""
    expected = isinstance(error, (ValueError, OSError, ArithmeticError))
    return _one_line(error) if expected else f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
