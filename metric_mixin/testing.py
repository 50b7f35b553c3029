"""What people need to test a module of their own: processes in a group, and a logger that keeps what it is given."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from unittest import mock

import torch
import torch.distributed
from lightning.pytorch.loggers import Logger

from metric_mixin._errors import RankError, RankTimeoutError

_T = TypeVar("_T")

_STARTING = 60.0  # seconds for all processes to start and import what they need
_GRACE = 3.0  # seconds for the other ranks to end by themselves once one has failed
_READY = b"ready"


def run_ranks(fn: Callable[..., _T], *args: Any, world_size: int = 2, timeout: float = 60) -> list[_T]:
    """Call a function in several processes that form a group, and return what each returned.

    The processes are real ones on this machine's CPU, with one thread each, in a ``torch.distributed`` group (gloo, on
    the loopback interface, by a file in a temporary folder: no port is taken). ``RANK``, ``LOCAL_RANK``,
    ``WORLD_SIZE`` and ``MASTER_ADDR`` are set, so that in ``fn`` a Lightning Trainer joins the same group:
    ``Trainer(accelerator="cpu", devices=world_size, strategy="ddp", plugins=LightningEnvironment())``. The filters of
    warnings that hold here hold there. When it returns or raises, no file is left and no process, those that a rank
    has started included; where the caller is killed, no process. (On Windows only the ranks end, and only when it
    returns or raises.) A script that calls it does so below ``if __name__ == "__main__":``, since each process imports
    the script.

    Args:
        fn: Called as ``fn(rank, *args)``. Picklable, as a function of a module is; so are ``args`` and what it returns.
        args: The same for each rank.
        world_size: Number of processes, at least 1.
        timeout: Seconds for ``fn`` on all ranks; a collective in it has four fifths of them, so that one that waits in
            vain says so. Starting the processes does not count.

    Returns:
        What ``fn`` returned, by rank. Tensors are copies of their own.

    Raises:
        RankError: A rank raised (the message has its traceback) or died (its exit code). The other ranks then have
            three seconds to end by themselves.
        RankTimeoutError: Ranks had not returned in time; the message names them.

    Examples:
        >>> from metric_mixin.testing import run_ranks
        >>> run_ranks(pow, 2, world_size=3)  # pow(0, 2), pow(1, 2), pow(2, 2)
        [0, 1, 4]
    """
    name = f"`run_ranks({getattr(fn, '__qualname__', repr(fn))}, ...)`"
    if world_size < 1:
        raise RankError(f"{name}: world_size must be at least 1, got {world_size!r}.")
    try:
        filters = [one for one in warnings.filters if one[2].__module__ != "__main__"]  # which the processes have not
        call = pickle.dumps((fn, args, filters))
    except Exception as error:  # pickle raises whatever the object's own methods raise
        raise RankError(
            f"{name}: the function and its arguments are sent to other processes and cannot be pickled: {error}. "
            "Use a function that a module defines, not one inside of another function or a lambda."
        ) from error
    with _started(call, world_size, timeout) as ranks:
        results, faults, late, seconds = _answers(ranks, timeout)
    if faults:
        parts = [f"{name}: {_ranks(faults)} of {world_size} failed."]
        parts += [f"Rank {rank} {fault.rstrip()}" for rank, fault in faults.items()]
        parts += [f"Still running {_GRACE:g} s later, and then ended: {_ranks(late)}."] if late else []
        raise RankError("\n".join(parts))
    if late:
        raise RankTimeoutError(
            f"{name}: still running after {seconds}, and then ended: {_ranks(late)}. Returned: {_ranks(results)}."
        )
    return [results[rank] for rank in range(world_size)]


@contextmanager
def _started(call: bytes, world_size: int, timeout: float) -> Iterator[list[tuple[Any, Any]]]:
    """Processes and the pipes to them, by rank; in the end none runs and no file is left."""
    context = get_context("spawn")
    loopback = {"linux": {"GLOO_SOCKET_IFNAME": "lo"}, "darwin": {"GLOO_SOCKET_IFNAME": "lo0"}}.get(sys.platform, {})
    ranks: list[tuple[Any, Any]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        try:
            for rank in range(world_size):
                ours, theirs = context.Pipe()
                process = context.Process(target=_run, args=(theirs, rank, world_size, timeout, meeting, call))
                places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
                fixed = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
                with mock.patch.dict(os.environ, loopback | places | fixed):  # libraries read them when imported
                    process.start()
                theirs.close()
                ranks.append((process, ours))
            yield ranks
        except BaseException:  # such as Ctrl-C, which their groups do not get, and which may soon come again
            for process, _ in ranks:
                with suppress(ValueError):
                    _kill(process)
            raise
        finally:
            for _, pipe in ranks:
                pipe.close()  # a rank that has returned waits for it
            for process, _ in ranks:
                with suppress(ValueError):  # closed: its death was told
                    _ended(process)


def _ended(process: Any) -> int:
    """Let a process end, or end it, with all that it started; return its exit code.

    Until its exit code is read nobody else can have its number, by which those that it started are found.
    """
    wait([process.sentinel], _GRACE)
    _kill(process)
    process.join()
    return int(process.exitcode)


def _kill(process: Any) -> None:
    with suppress(AttributeError, OSError):  # Windows has no groups; or it ended before it made its own
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _end_with_the_caller() -> None:
    """Begin a group of processes, this one and all that it starts; it ends at the latest when the caller does."""
    with suppress(AttributeError):  # Windows has no groups
        os.setpgid(0, 0)
        Thread(target=_end_after, args=(parent_process(),), daemon=True).start()


def _end_after(caller: Any) -> None:
    caller.join()
    os.killpg(0, signal.SIGKILL)


def _answers(ranks: list[tuple[Any, Any]], timeout: float) -> tuple[dict[int, Any], dict[int, str], list[int], str]:
    """Let all begin once all are ready; return results, faults in order, who did not answer, and in what time."""
    results: dict[int, Any] = {}
    faults: dict[int, str] = {}
    waiting = {pipe: rank for rank, (_, pipe) in enumerate(ranks)}
    ready, until, seconds = 0, time.monotonic() + _STARTING, f"{_STARTING:g} s, spent on starting"
    while waiting and (answered := wait(waiting, max(0.0, until - time.monotonic()))):
        for pipe in answered:
            message = _received(pipe)
            if message == _READY:
                ready += 1
                if ready == len(ranks):
                    until, seconds = time.monotonic() + timeout, f"{timeout:g} s"
                    for _, one in ranks:
                        with suppress(OSError):  # it has died, which will be seen
                            one.send_bytes(_READY)
                continue
            rank = waiting.pop(pipe)
            fault, result = _unpickled(message) if message else (_death(ranks[rank][0]), None)
            if fault is None:
                results[rank] = result
            else:
                faults[rank] = fault
                until = min(until, time.monotonic() + _GRACE)
    late = list(waiting.values())
    for rank in late:
        ranks[rank][0].kill()
    return results, faults, late, seconds


def _run(pipe: Any, rank: int, world_size: int, timeout: float, meeting: str, call: bytes) -> None:
    """What each process does: say that it is ready, join the group, call, answer, and wait for the others."""
    _end_with_the_caller()
    try:
        fn, args, warnings.filters = pickle.loads(call)
        pipe.send_bytes(_READY)
        pipe.recv_bytes()
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=world_size, timeout=timedelta(seconds=0.8 * timeout)
        )
        answer = pickle.dumps((None, fn(rank, *args)))  # plain pickle: tensors by value, no shared memory
    except BaseException:  # of tests, too, whose failures may be no `Exception`
        answer = pickle.dumps((f"raised:\n{traceback.format_exc()}", None))
    pipe.send_bytes(answer)
    with suppress(EOFError, OSError):
        pipe.recv_bytes()  # no rank leaves the group before all have answered
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _unpickled(message: bytes) -> tuple[str | None, Any]:
    try:
        fault, result = pickle.loads(message)
    except Exception as error:  # whatever the object's own methods raise
        return f"returned what cannot be unpickled: {type(error).__name__}: {error}", None
    return fault, result


def _received(pipe: Any) -> bytes | None:
    try:
        return bytes(pipe.recv_bytes())
    except (EOFError, OSError):
        return None


def _death(process: Any) -> str:
    code = _ended(process)
    process.close()
    by = f" ({signal.Signals(-code).name})" if code < 0 else ""
    return f"died with exit code {code}{by}."


def _ranks(ranks: Any) -> str:
    """``rank 1``, ``ranks 0, 2``, or ``none``."""
    numbers = sorted(ranks)
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else "none"


class CapturingLogger(Logger):
    """Keep what is logged, in memory.

    Attributes:
        metrics: One dict a call of ``log_metrics``: the values, and ``step``.
        figures: One dict a picture: ``key``, ``figure`` and ``step``.
        hyperparameters: What ``log_hyperparams`` was given.

    Examples:
        >>> logger = CapturingLogger()
        >>> logger.log_metrics({"val/acc": 0.75}, step=3)
        >>> logger.metrics
        [{'val/acc': 0.75, 'step': 3}]
    """

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, Any]] = []
        self.figures: list[dict[str, Any]] = []
        self.hyperparameters: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return "capturing"

    @property
    def version(self) -> int:
        """Version of the experiment."""
        return 0

    @property
    def experiment(self) -> CapturingLogger:
        """The back end, which is the logger itself."""
        return self

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep one row."""
        self.metrics.append({**metrics, "step": step})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep hyperparameters."""
        self.hyperparameters.update(params if isinstance(params, dict) else vars(params))

    def add_figure(self, tag: str, figure: Any, global_step: int | None = None, **kwargs: Any) -> None:
        """Keep one picture."""
        self.figures.append({"key": tag, "figure": figure, "step": global_step})
