"""``run_ranks``: processes in a group, what they return and how they fail."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import distributed

from metric_mixin import RankError, RankTimeoutError
from metric_mixin.testing import run_ranks


def exchange(rank, factor):
    """What a rank sees of the group, its environment, and a large tensor."""
    total = torch.tensor(rank + 1)
    distributed.all_reduce(total)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    return {
        "sum": total,
        "size": distributed.get_world_size(),
        "backend": distributed.get_backend(),
        "environment": [os.environ[name] for name in names],
        "threads": torch.get_num_threads(),
        "large": torch.full((3_000_000,), float(rank * factor)),
        "grad": torch.ones(2, requires_grad=True) * rank,
    }


def fail_in(rank, kinds):
    """Fail in the way that ``kinds`` has for this rank."""
    kind = kinds.get(rank, "return")
    if kind == "raise":
        raise ValueError(f"no {rank} bananas")
    if kind == "assert":
        pytest.fail("a failure that is no Exception")
    if kind == "exit":
        os._exit(7)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(600)
    if kind == "wait":
        distributed.barrier()
    if kind == "warn":
        warnings.warn(f"odd {rank}", UserWarning, stacklevel=1)
    if kind == "lambda":
        return lambda: rank
    return rank


@pytest.fixture
def left(monkeypatch, tmp_path):
    """What is left when a test ends: files of its temporary folder and processes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_are_processes_of_one_group(world_size):
    """Results come by rank, from processes that reduce over one group; large tensors come whole."""
    before = dict(os.environ)

    results = run_ranks(exchange, 10, world_size=world_size)

    assert dict(os.environ) == before
    for rank, result in enumerate(results):
        large, grad = result.pop("large"), result.pop("grad")
        assert large.shape == (3_000_000,)
        assert (large == 10 * rank).all()
        assert grad.tolist() == [rank, rank]
        assert result == {
            "sum": torch.tensor({2: 3, 3: 6}[world_size]),
            "size": world_size,
            "backend": "gloo",
            "environment": [str(rank), str(rank), str(world_size), "127.0.0.1"],
            "threads": 1,
        }


@pytest.mark.usefixtures("left")
def test_an_exception_comes_back_with_its_rank_and_traceback():
    """Each rank that failed is named with its traceback; one that waits for it in a collective is ended soon."""
    start = time.monotonic()
    with pytest.raises(RankError) as caught:
        run_ranks(fail_in, {0: "wait", 1: "raise", 2: "assert"}, world_size=3, timeout=100)
    message = str(caught.value)
    assert message.startswith("`run_ranks(fail_in, ...)`: ranks 1, 2 of 3 failed.\n")
    for words in ("Rank 1 raised:\nTraceback", "in fail_in", "ValueError: no 1 bananas", "Rank 2 raised:\nTraceback"):
        assert words in message
    assert message.endswith("\nStill running 3 s later, and then ended: rank 0.")
    assert time.monotonic() - start < 60


@pytest.mark.usefixtures("left")
def test_a_rank_that_dies_is_told_with_its_exit_code():
    """Neither `os._exit` nor a signal is waited for."""
    with pytest.raises(RankError) as caught:
        run_ranks(fail_in, {1: "exit", 2: "kill"}, world_size=3)
    message = str(caught.value)
    assert message.startswith("`run_ranks(fail_in, ...)`: ranks 1, 2 of 3 failed.\n")
    assert "Rank 1 died with exit code 7." in message
    assert "Rank 2 died with exit code -9 (SIGKILL)." in message


@pytest.mark.usefixtures("left")
def test_a_rank_that_hangs_is_told_and_ended():
    """After the timeout, the error names the ranks that returned and those that did not."""
    with pytest.raises(RankTimeoutError) as caught:
        run_ranks(fail_in, {1: "hang"}, timeout=2)
    words = "`run_ranks(fail_in, ...)`: still running after 2 s, and then ended: rank 1. Returned: rank 0."
    assert str(caught.value) == words
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.usefixtures("left")
def test_the_filters_of_warnings_and_what_cannot_be_sent_back():
    """A warning that is an error here is one in a rank; a result that cannot be pickled is that rank's failure."""
    with pytest.raises(RankError, match="UserWarning: odd 0") as caught:
        run_ranks(fail_in, {0: "warn", 1: "lambda"})
    assert "ranks 0, 1 of 2 failed" in str(caught.value)
    assert "lambda" in str(caught.value)


def start_another(rank, kinds, folder):
    """Start a process that would run on for ten minutes, write both numbers down, and end in the way of ``kinds``."""
    another = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert runs(os.getpid())
    assert runs(another.pid)
    (Path(folder) / f"{rank}").write_text(f"{os.getpid()} {another.pid}")
    fail_in(rank, kinds)


def runs(process):
    """Whether a process runs, or only waits for somebody to take its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def started(folder, ranks):
    """Numbers of the processes that the ranks wrote down, once all have."""
    files = [folder / f"{rank}" for rank in range(ranks)]
    while not all(one.exists() and one.read_text() for one in files):
        time.sleep(0.1)
    return [int(number) for one in files for number in one.read_text().split()]


def all_end(processes):
    """Whether all end within some seconds: a signal takes a moment to do its work."""
    until = time.monotonic() + 20
    while any(map(runs, processes)) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(map(runs, processes))


has_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="what runs is read from /proc")


@has_proc
def test_what_a_rank_has_started_ends_with_it(tmp_path):
    """Whether the rank returns, dies or is ended."""
    with pytest.raises(RankError, match=r"Rank 1 died with exit code 7\.\nStill running 3 s later.*: rank 2\."):
        run_ranks(start_another, {1: "exit", 2: "hang"}, str(tmp_path), world_size=3)
    assert all_end(started(tmp_path, 3))


@has_proc
def test_where_the_caller_is_killed_no_rank_runs_on(tmp_path):
    """Nor what it has started."""
    code = f"from tests.test_testing import *; run_ranks(start_another, {{0: 'hang'}}, {str(tmp_path)!r}, world_size=1)"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    processes = started(tmp_path, 1)
    caller.kill()
    caller.wait()
    assert all_end(processes)


@has_proc
def test_ctrl_c_ends_ranks_at_once_however_often_it_comes(tmp_path):
    """The ranks are no part of the caller's group, which a terminal interrupts; none is waited for."""
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background has it ignored
    call = f"run_ranks(start_another, {{0: 'hang', 1: 'hang'}}, {str(tmp_path)!r})"
    code = f"from tests.test_testing import *; {heard}; {call}"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True
    ) as caller:
        processes = started(tmp_path, 2)
        caller.send_signal(signal.SIGINT)
        time.sleep(0.5)
        caller.send_signal(signal.SIGINT)
        try:
            _, said = caller.communicate(timeout=20)
        finally:
            caller.kill()
    assert "KeyboardInterrupt" in said
    assert all_end(processes)


def test_what_cannot_be_sent_is_an_error_at_once():
    """A function of a function cannot be pickled, and a group has a process."""
    with pytest.raises(RankError, match=r"`run_ranks\(.*<lambda>, \.\.\.\)`: .* cannot be pickled: .*lambda.*a module"):
        run_ranks(lambda rank: rank)
    with pytest.raises(RankError, match=r"`run_ranks\(pow, \.\.\.\)`: world_size must be at least 1, got 0"):
        run_ranks(pow, 2, world_size=0)


def test_the_temporary_folder_is_where_files_would_be(tmp_path, monkeypatch):
    """Control: a file that were left would be seen by the checks above."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with tempfile.TemporaryDirectory():
        assert len(list(Path(tempfile.gettempdir()).iterdir())) == 1


class WeirdError(Exception):
    """Pickles, and does not come back."""

    def __init__(self, one, two):
        super().__init__("x")


def weird(rank):
    return WeirdError(1, 2)


def test_a_result_that_does_not_come_back_is_the_ranks_fault():
    """Named, and no error from inside of pickle."""
    with pytest.raises(RankError, match="Rank 0 returned what cannot be unpickled: TypeError"):
        run_ranks(weird, world_size=1)


def test_a_filter_of_the_main_program_harms_nobody(monkeypatch):
    """Its category is not to be had in another process."""
    category = type("Own", (UserWarning,), {"__module__": "__main__"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=category)
        assert run_ranks(pow, 2, world_size=1) == [0]
