"""Each way to start several processes, with a real Trainer or Fabric: values equal to one process's."""

import os
import re
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import MetricMixinWarning, StageMetrics
from metric_mixin.testing import run_ranks
from tests.support import CLASSES, FULLY_SHARDS_ON_CPU, Lit, data, loader, ranks_trainer

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "two_processes.py"
ROWS = 21


def equals_one_process(printed):
    """Whether the example counted each row once, on two processes, with the values that one process finds."""
    values = [re.search(rf"^{who}: +accuracy ([\d.]+), loss ([\d.]+)$", printed, re.M) for who in ("together", "alone")]
    together, alone = ([float(number) for number in found.groups()] for found in values)
    return (
        re.search(r"^processes: 2$", printed, re.M) is not None
        and re.search(r"^rows: +289 of 289$", printed, re.M) is not None
        and together == pytest.approx(alone, abs=2e-6)
    )


def test_the_comparison_with_one_process_can_fail():
    """Control: another accuracy, or a row counted twice."""
    right = (
        "processes: 2\nrows:      289 of 289\ntogether:  accuracy 0.5, loss 1.0\nalone:     accuracy 0.5, loss 1.0\n"
    )
    assert equals_one_process(right)
    for wrong in (right.replace("289 of", "290 of"), right.replace("0.5", "0.51", 1), right.replace(": 2", ": 1")):
        assert not equals_one_process(wrong)


def started(*args, folder):
    """A process with a session of its own, so that it and its children can be ended together."""
    return subprocess.Popen(
        [sys.executable, *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def outputs(processes, timeout=90):
    """What each prints; in the end none of them and of their children runs."""
    try:
        printed = [process.communicate(timeout=timeout)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(printed)[-4000:]
        return printed
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def aborted_by_gloo_at_exit(printed):
    """Whether ``fit`` ended and every row was counted before one of gloo's threads aborted the process as it exits.

    Plain torch does so now and then, too: https://github.com/pytorch/pytorch/issues/190489.
    """
    order = [printed.find(words) for words in ("`Trainer.fit` stopped", "289 of 289", "terminate called without an")]
    return -1 not in order and max(order[:2]) < order[2]


def printed_by(*commands, folder, again=2):
    """What the processes print, started together; an abort that is gloo's alone is tried again, nothing else."""
    try:
        return outputs([started(*command, folder=folder) for command in commands])
    except AssertionError as error:
        if not (again and aborted_by_gloo_at_exit(str(error))):
            raise
    (folder / "meeting").unlink(missing_ok=True)
    return printed_by(*commands, folder=folder, again=again - 1)


def test_only_an_abort_after_the_fit_is_tried_again(tmp_path):
    """Control: another failure is one at once; an abort passes if the next attempt does; three are a failure."""
    abort = "`Trainer.fit` stopped\n289 of 289\nterminate called without an active exception"
    assert not any(map(aborted_by_gloo_at_exit, ("", "\n".join(abort.splitlines()[::-1]), abort[:-80])))
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "calls = pathlib.Path('calls')\n"
        "n = int(calls.read_text()) if calls.exists() else 0\n"
        "calls.write_text(str(n + 1))\n"
        f"print({abort!r} if sys.argv[1] == 'gloo' else 'other'); sys.exit(n < int(sys.argv[2]))\n"
    )
    for what, failures, calls in (("gloo", 1, 2), ("other", 1, 1), ("gloo", 3, 3)):
        (tmp_path / "calls").unlink(missing_ok=True)
        with nullcontext() if calls == 2 else pytest.raises(AssertionError):
            printed_by((str(script), what, str(failures)), folder=tmp_path)
        assert (tmp_path / "calls").read_text() == str(calls)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_fork"])
def test_processes_that_a_trainer_starts(strategy, tmp_path):
    """Started, spawned or forked by ``fit``: 289 rows, accuracy and loss of one process."""
    command = (str(EXAMPLE), "--strategy", strategy, "--epochs", "2")
    (printed,) = printed_by(command, folder=tmp_path)
    assert equals_one_process(printed), printed


@pytest.mark.timeout(280)
def test_two_nodes_of_torchrun(tmp_path):
    """Two agents with a process each, as on two machines, which meet by a file."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(tmp_path / "meeting"), "--rdzv-conf", "store_type=file"]
    command = (
        *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting),
        *("--rdzv-id", "digits", "--local-addr", "127.0.0.1"),
        *(str(EXAMPLE), "--devices", "1", "--nodes", "2", "--epochs", "2"),
    )
    printed = printed_by(command, command, folder=tmp_path)
    assert sorted(map(len, (re.findall("^rows", one, re.M) for one in printed))) == [0, 1]
    assert equals_one_process("".join(printed)), printed


def test_the_test_that_the_docs_show(tmp_path):
    """The file of the how-to, as a reader would save and run it."""
    page = (EXAMPLE.parents[1] / "howto" / "testing.md").read_text()
    (code,) = re.findall(r'^```python title="test_mine.py"\n(.*?)^```$', page, re.S | re.M)
    (tmp_path / "test_mine.py").write_text(code)
    (printed,) = outputs([started("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)])
    assert "2 passed" in printed


# Fabric


def metrics():
    return StageMetrics(
        {
            "acc": MulticlassAccuracy(CLASSES, average="micro"),
            "each": ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None)),
            "rows": MulticlassConfusionMatrix(CLASSES),
        }
    )


def with_fabric(rank):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", plugins=[LightningEnvironment()])
    fabric.launch()
    torch.manual_seed(0)
    net = nn.Linear(4, CLASSES)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
    even, uneven = (fabric.setup_dataloaders(DataLoader(TensorDataset(*data(n)), batch_size=4)) for n in (22, 21))
    for x, y in even:
        fabric.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
    stage = metrics().to(fabric.device)
    found = []
    for batches in (even, uneven):
        for x, y in batches:
            stage.update(model(x), y)
        found.append(stage.compute())
        stage.reset()
    x, y = data(22)
    return found, torch.stack([y, net(x).argmax(1)])


def test_stage_metrics_with_fabric():
    """Both processes have the matrix of all 22 rows, counted by hand; of 21 rows Fabric gives 22, and they count."""
    (first, pairs), (second, _) = run_ranks(with_fabric)
    wanted = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for target, predicted in pairs.T.tolist():
        wanted[target, predicted] += 1
    for even, uneven in (first, second):
        assert torch.equal(even["rows"], wanted)
        torch.testing.assert_close(even["acc"], wanted.diagonal().sum() / 22)
        each = torch.stack([even[f"each/{i}"] for i in range(CLASSES)])
        torch.testing.assert_close(each, wanted.diagonal() / wanted.sum(1))
        assert uneven["rows"].sum() == 22


# FSDP: what moves a module, and what does not


class Sharded(Lit):
    """Its layer is made, and its parameters are sharded, when the processes are there."""

    def __init__(self):
        super().__init__()
        self.net = None
        self.sharded = []

    def configure_model(self):
        if self.net is None:
            torch.manual_seed(0)
            self.net = nn.Linear(4, CLASSES)
            assert self.val_metrics["acc"].device.type == "cpu"
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def configure_metrics(self):
        return {"acc": MulticlassAccuracy(CLASSES, average="micro"), "rows": MulticlassConfusionMatrix(CLASSES)}

    def on_train_start(self):
        self.sharded.append(isinstance(self.net.weight, DTensor))

    def on_validation_batch_end(self, outputs, batch, batch_idx):
        self.outputs = getattr(self, "outputs", 0.0) + (outputs.detach() * self.counted_rows).double()
        self.rows = getattr(self, "rows", 0) + self.counted_rows


class Wrapped(Sharded):
    """Its Trainer wraps it as a whole, in FSDP of the first kind."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, CLASSES)

    def on_train_start(self):
        wrapped = isinstance(self.trainer.model, FullyShardedDataParallel)
        self.sharded.append(wrapped and self.net.weight.numel() < 4 * CLASSES)


class FSDPOnCPU(FSDPStrategy):
    """Lightning takes this strategy for GPUs alone; torch's wrapper goes to the CPU where it is told so."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)


def with_shards(rank, folder):
    def fitted(module, trainer):
        trainer.fit(module, loader(ROWS), loader(ROWS))
        return module.sharded, module.outputs, module.rows, module.metric_results["val"]

    def trainer(strategy):
        return ranks_trainer(folder, 2, strategy=strategy, max_epochs=1, num_sanity_val_steps=0)

    results = {"wrapped": fitted(Wrapped(), trainer(FSDPOnCPU()))}
    for on_meta in (False, True) if FULLY_SHARDS_ON_CPU else ():
        run = trainer(ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1))
        with run.init_module(empty_init=on_meta):
            module = Sharded()
        results["made on the meta device" if on_meta else "plain"] = fitted(module, run)
    return results


@pytest.fixture(scope="module")
def sharded_ranks(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is no scalar and is not logged", MetricMixinWarning)
        return run_ranks(with_shards, str(tmp_path_factory.mktemp("sharded")))


@pytest.mark.parametrize("case", ["wrapped", "plain", "made on the meta device"])
def test_parameters_sharded_over_processes(case, sharded_ranks):
    """FSDP1 and FSDP2 (``fully_shard``) on two CPU processes: 21 rows, and the loss of the ranks' batches by hand."""
    if case != "wrapped" and not FULLY_SHARDS_ON_CPU:
        pytest.skip("before 2.7 torch's fully_shard works on accelerators only")
    ranks = [results[case] for results in sharded_ranks]
    assert [sharded for sharded, *_ in ranks] == [[True]] * 2
    assert sum(rows for _, _, rows, _ in ranks) == ROWS
    wanted = sum(loss for _, loss, *_ in ranks) / ROWS
    for *_, values in ranks:
        assert values["val/rows"].sum() == ROWS
        assert values["val/acc"] == values["val/rows"].diagonal().sum() / ROWS
        torch.testing.assert_close(values["val/loss"].double(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("built", ["before", "on-meta", "after"])
def test_a_module_without_storage_has_metrics_with_some(built):
    """A module made on the meta device and given storage by ``to_empty`` has states that count, whenever built."""
    x, y = data(8)
    with torch.device("meta"):
        module = Lit()
        if built == "on-meta":
            module.update_metrics(x[:, :CLASSES], y, stage="val")
    if built == "before":
        module.update_metrics(x[:, :CLASSES], y, stage="val")
    module.to_empty(device="cpu")
    if built == "after":
        module.update_metrics(x[:, :CLASSES], y, stage="val")
    assert module.val_metrics.compute()["acc"] == (x[:, :CLASSES].argmax(1) == y).float().mean()


def test_rows_survive_a_move_to_the_meta_device_and_back():
    """Offloading by ``to("meta")`` and ``to_empty`` loses weights, which are loaded again; rows are not."""
    x, y = data(8)
    module = Lit()
    module.update_metrics(x[:, :CLASSES], y, stage="val")
    module.to("meta").to_empty(device="cpu")
    assert module.val_metrics.compute()["acc"] == (x[:, :CLASSES].argmax(1) == y).float().mean()


def test_states_go_where_the_module_goes(monkeypatch):
    """Whatever moves a module calls its ``_apply``: metrics and loss of each stage get the device that comes of it."""
    module, moved = Lit(), []
    module.val_metrics, module.test_metrics  # noqa: B018
    monkeypatch.setattr(StageMetrics, "to", lambda self, device: moved.append(device))
    elsewhere = torch.device("cuda", 1)
    monkeypatch.setattr("metric_mixin._loss.EpochLoss.to", lambda self, device: moved.append(device))
    module._apply(lambda t: t if t.numel() else SimpleNamespace(device=elsewhere))
    assert moved == [elsewhere] * 4


def test_states_follow_the_first_batch_where_nothing_moved_the_module():
    """FSDP1 changes ``param.data`` and calls no ``_apply``: metrics and loss go where an epoch's first batch is.

    The meta device stands for another one: a CPU has no second that counts.
    """
    module = Lit()
    part = module._metric_recorder.stage(module, "val").parts[0]
    x, y = (one.to("meta") for one in data(8))
    module.update_metrics(x[:, :CLASSES], y, stage="val")
    module.update_metrics(torch.zeros((), device="meta"), 8, metrics="loss", stage="val")
    assert {state.device.type for state in (part.metrics["acc"].tp, part.loss.weighted_sum)} == {"meta"}


def test_a_number_as_loss_leaves_the_states_where_they_are():
    """A loss from the CPU moves nothing: later ones would wait for their device."""
    module = Lit()
    part = module._metric_recorder.stage(module, "val").parts[0]
    part.loss.to("meta")
    module.update_metrics(1.0, 8, metrics="loss", stage="val")
    assert part.loss.weighted_sum.device.type == "meta"


def test_a_trainer_of_one_process_needs_no_group(tmp_path):
    """Control: the same module in one process, without any of this."""
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    (result,) = trainer.validate(Lit(), loader(ROWS), verbose=False)
    assert set(result) == {"val/loss", "val/acc"}
