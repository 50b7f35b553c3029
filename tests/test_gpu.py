"""On a GPU, where there is one: no step waits for it, and counts are those of the CPU."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torchmetrics import CatMetric, MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import LabelRangeError, StageMetrics
from metric_mixin._sync import _Exchange, _keepers
from metric_mixin.testing import run_ranks
from tests.support import CLASSES, Lit, loader
from tests.test_families import every_family, states_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@contextmanager
def no_waiting():
    """Inside, whatever waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", every_family())
def test_a_family_counts_on_a_gpu_what_it_counts_on_the_cpu(family):
    """After a first batch no update waits; every state equals the CPU's, bit for bit."""
    metrics, batch = every_family()[family]
    here, there = StageMetrics(every_family()[family][0]), StageMetrics(metrics).to("cuda")
    on_gpu = [value.cuda() for value in batch]
    for i in range(3):
        here.update(*batch)
        if i:
            with no_waiting():
                there.update(*on_gpu)
        else:
            there.update(*on_gpu)
    for name in here.names():
        for state, value in states_of(here[name]).items():
            assert torch.equal(states_of(there[name])[state].cpu(), value), (name, state)


@pytest.mark.parametrize("family", every_family())
def test_metrics_that_move_between_batches_lose_no_row(family):
    """A batch on the CPU, then one on the GPU, then one on the CPU again: the states of three."""
    metrics, batch = every_family()[family]
    here, moving = StageMetrics(every_family()[family][0]), StageMetrics(metrics)
    for device in ("cpu", "cuda", "cpu"):
        here.update(*batch)
        moving.to(device).update(*(value.to(device) for value in batch))
    for name in here.names():
        for state, value in states_of(here[name]).items():
            assert torch.equal(states_of(moving[name])[state].cpu(), value), (name, state)


@pytest.mark.parametrize("family", every_family())
def test_a_wrong_label_on_a_gpu_is_an_error_at_the_epochs_end(family):
    """Nothing fails on the device, and the error comes when values are computed."""
    metrics, (preds, target) = every_family()[family]
    stage = StageMetrics(metrics).to("cuda")
    wrong = target.clone()
    wrong.view(-1)[0] = 7
    stage.update(preds.cuda(), wrong.cuda())
    with pytest.raises(LabelRangeError, match="since the last reset, "):
        stage.compute()
    stage.reset()
    stage.update(preds.cuda(), target.cuda())
    stage.compute()


def every_way(device):
    """Metrics whose states are reduced and gathered, one of which keeps its rows on the CPU."""
    rows = {"rows": CatMetric(), "kept": CatMetric(compute_on_cpu=True)}
    return StageMetrics({"acc": MulticlassAccuracy(CLASSES), "mean": MeanMetric(), "top": MaxMetric()} | rows).to(
        device
    )


def fed(stage, rank, device):
    stage.update_only(["acc"], torch.arange(CLASSES, device=device), torch.full((CLASSES,), rank, device=device))
    stage.update_only(["mean", "top", "rows", "kept"], torch.tensor([1.0, 2.0], device=device) + 10 * rank)
    return stage


def on_a_rank(rank, device):
    values = fed(every_way(device), rank, device).compute()
    return {key: (value.device.type, value.tolist()) for key, value in values.items()}


def check_two_ranks(device):
    ranks = run_ranks(on_a_rank, device)
    assert ranks[0] == ranks[1]
    values = {key: value for key, (_, value) in ranks[0].items()}
    assert values == {
        "acc": pytest.approx(2 / 9),
        "mean": 6.5,
        "top": 12,
        "rows": [1, 2, 11, 12],
        "kept": [1, 2, 11, 12],
    }
    assert {key: where for key, (where, _) in ranks[0].items()} == dict.fromkeys(values, device) | {"kept": "cpu"}


def test_states_on_a_gpu_travel_by_gloo():
    """H5: two ranks on one GPU, whose group exchanges on the CPU; values are on the GPU again."""
    check_two_ranks("cuda")


def check_exchange(back_end, folder):
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group(back_end, init_method=meeting, rank=0, world_size=1)
    try:
        stage = fed(every_way("cpu"), 0, "cpu")
        units = stage.units()
        found = _Exchange(_keepers(units), {}, [5]).run()
    finally:
        dist.destroy_process_group()
    for unit in units:
        metric = next(iter(unit.values()))
        updates, states = found[id(metric)]
        assert updates == 1
        for name, state in metric.metric_state.items():
            torch.testing.assert_close(states[name], state)  # devices, too


def test_states_on_the_cpu_travel_by_nccl(tmp_path):
    """H5: the only rank of a group that exchanges on the GPU gets its states back, on the CPU."""
    check_exchange("nccl", tmp_path)


def test_no_step_of_fit_waits_for_the_gpu(trainer):
    """After the first batch, metrics and loss of a step wait for nothing."""

    class Watched(Lit):
        def configure_metrics(self):
            return {
                "acc": MulticlassAccuracy(CLASSES),
                "each": ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None)),
                "auroc": MulticlassAUROC(CLASSES, thresholds=5),
            }

        def training_step(self, batch, batch_idx):
            if batch_idx == 0:
                return super().training_step(batch, batch_idx)
            with no_waiting():
                return super().training_step(batch, batch_idx)

    trainer(accelerator="gpu", devices=1, max_epochs=2).fit(Watched(), loader(), loader())
