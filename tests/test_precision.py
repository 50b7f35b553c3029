"""Precision: states stay in ``metric_dtype`` and values are those of float64, whatever precision the module has."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn, tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.regression import CosineSimilarity, MeanSquaredError

from metric_mixin import ManualMetricLoggingModule, MetricLogging, StageMetrics

PRECISIONS = ["bf16-true", "16-true", "64-true", "bf16-mixed", "32-true"]


class Values(ManualMetricLoggingModule):
    """Each batch is one number, its own prediction; the target is 0."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x

    def loss(self, outputs, target):
        return outputs.mean()

    def configure_metrics(self):
        return {"mean": MeanMetric(), "mse": MeanSquaredError()}

    def metric_inputs(self, outputs, target, batch):
        return {"value": outputs, "preds": outputs, "target": target}


def batches(count=3000):
    numbers = torch.arange(1.0, count + 1)
    return DataLoader([(n[None], torch.zeros(1)) for n in numbers], batch_size=None), numbers


@pytest.mark.parametrize("precision", PRECISIONS)
def test_3000_batches_are_within_1e_5_of_float64(trainer, precision):
    """W2: mean 1500.5 and MSE 3.00M, where states in half precision give 4096 and 1.27M."""
    loader, numbers = batches()
    half = {"bf16-true": torch.bfloat16, "16-true": torch.float16}.get(precision)
    seen = numbers.to(half) if half else numbers  # what the module is given, exactly
    exact = seen.double().numpy()

    (result,) = trainer(precision=precision).validate(Values(), loader, verbose=False)

    assert result["val/mean"] == pytest.approx(exact.mean(), rel=1e-5)
    assert result["val/loss"] == pytest.approx(exact.mean(), rel=1e-5)
    assert result["val/mse"] == pytest.approx((exact**2).mean(), rel=1e-5)


def test_half_precision_states_would_be_far_off():
    """Control: torchmetrics alone, with its states converted as Lightning converts them, is wrong by half."""
    metric = MeanMetric().set_dtype(torch.bfloat16)
    for n in range(1, 3001):
        metric.update(tensor(float(n)))
    assert abs(metric.compute().item() - 1500.5) > 500


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floating_states_stay_in_metric_dtype(trainer, precision, dtype):
    """Through setup, a run and its end; integer states stay integers."""

    class Kept(Values):
        metric_logging = MetricLogging(metric_dtype=dtype)

        def on_validation_batch_end(self, *args):
            found.add((self.val_metrics["mse"].sum_squared_error.dtype, self.val_metrics["mse"].total.dtype))

    found = set()
    trainer(precision=precision).validate(Kept(), batches(3)[0], verbose=False)
    assert found == {(dtype, torch.int64 if MeanSquaredError().total.dtype == torch.int64 else dtype)}


@pytest.mark.parametrize(
    "convert",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.double(),
        lambda m: m.to(torch.float16),
        lambda m: m.float(),
    ],
    ids=["half", "bfloat16", "double", "to-float16", "float"],
)
def test_converting_the_module_leaves_states_alone(convert):
    """``module.half()``, ``.to(dtype)`` and the like convert parameters, and no state, of whatever dtype."""
    module = Values()
    module.configure_metrics = lambda: {"mse": MeanSquaredError(), "confusion": MulticlassConfusionMatrix(3)}
    before = {name: {k: v.dtype for k, v in m.metric_state.items()} for name, m in module.val_metrics.items()}
    convert(module)
    after = {name: {k: v.dtype for k, v in m.metric_state.items()} for name, m in module.val_metrics.items()}
    assert after == before
    module.update_metrics(tensor([0.5]), tensor([0.25]), metrics="mse", stage="val")
    assert module.val_metrics["mse"].compute().item() == 0.0625


def test_mixed_precision_does_not_autocast_metrics(trainer):
    """A metric that multiplies matrices does it in full precision, as outside of autocast."""

    class Cosine(Values):
        def configure_metrics(self):
            return {"cosine": CosineSimilarity(reduction="mean"), "product": Product()}

        def metric_inputs(self, outputs, target, batch):
            return outputs, target

    class Product(MeanMetric):
        def update(self, preds, target):
            super().update((preds @ target.T).diagonal())

    generator = np.random.default_rng(0)
    x, y = (torch.tensor(generator.normal(size=(8, 33)), dtype=torch.float32) for _ in range(2))
    module = Cosine()
    module.loss = lambda outputs, target: outputs.mean()
    (result,) = trainer(precision="bf16-mixed").validate(module, DataLoader([(x, y)], batch_size=None), verbose=False)
    assert result["val/product"] == pytest.approx((x.double() * y.double()).sum(1).mean().item(), rel=1e-5)


def test_half_precision_labels_and_probabilities_are_the_same_rows(trainer):
    """Predictions in half precision are counted as they are: the top label is that of the given numbers."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(64, 3, generator=generator).bfloat16(), torch.randint(3, (64,), generator=generator)
    stage = StageMetrics({"acc": MulticlassAccuracy(3, average="micro")})
    stage.update(logits, target)
    assert stage.compute()["acc"].item() == pytest.approx((logits.float().argmax(1) == target).double().mean().item())


def test_torchs_default_dtype_is_put_back():
    """A half precision as default dtype, as the ``*-true`` plugins set it, is put back after each call."""
    stage = StageMetrics({"mean": MeanMetric()})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        for n in range(1, 301):
            stage.update(tensor(float(n), dtype=torch.float32))
        assert torch.get_default_dtype() == torch.bfloat16
        assert stage.compute()["mean"].item() == pytest.approx(150.5)
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(before)


def test_lightnings_own_logging_is_what_it_was(trainer):
    """Control of the setting: the module runs in half precision, so what is exact above is our doing."""

    class Plain(LightningModule):
        def validation_step(self, batch):
            dtypes.add(batch[0].dtype)

    dtypes = set()
    run = trainer(precision="bf16-true")
    assert isinstance(run, Trainer)
    run.validate(Plain(), batches(2)[0], verbose=False)
    assert dtypes == {torch.bfloat16}
