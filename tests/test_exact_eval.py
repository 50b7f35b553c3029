"""Exact evaluation: on several processes each row counts once, as on one."""

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from torchmetrics import MeanMetric, Metric, SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from metric_mixin import (
    BatchError,
    ForgottenSuperError,
    ManualMetricLoggingModule,
    MetricLogging,
    MetricMixinWarning,
    StageError,
    UpdateError,
)
from metric_mixin.testing import run_ranks
from tests.support import make_trainer, ranks_trainer


class Numbers(ManualMetricLoggingModule):
    """Outputs are the inputs, numbers; the loss is their mean; metrics take their mean and count them."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.metric_logging = MetricLogging(**options)
        self.anchor = nn.Parameter(torch.zeros(()))
        self.forwarded: list[int] = []
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.forwarded.append(len(x))
        return x + 0 * self.anchor

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        assert len(outputs) == len(target) > 0
        return outputs.mean()

    def configure_metrics(self) -> Any:
        return {"mean": MeanMetric(), "rows": MulticlassConfusionMatrix(3)}

    def metric_inputs(self, outputs: Tensor, target: Tensor, batch: Any) -> Any:
        assert len(outputs) == len(batch[0])
        return {"value": outputs, "preds": target, "target": target}

    def validation_step(self, *args: Any) -> Tensor:
        loss = super().validation_step(*args)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ByHand(Numbers):
    """Feeds its own steps; of each mistake in a batch with padding it keeps the message."""

    def __init__(self) -> None:
        super().__init__()
        self.mistakes: list[str] = []
        self.counted: list[int] = []

    def configure_metrics(self) -> Any:
        return super().configure_metrics() | {"untrimmed": SumMetric(), "cut": SumMetric(), "at_end": SumMetric()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        outputs = self(x)
        n = self.counted_rows
        self.counted.append(n)
        if 0 < n < len(x):
            self._err()
        self.update_metrics(outputs, metrics="mean")
        self.update_metrics(preds=y, target=y, metrics="rows")
        self.update_metrics(outputs, metrics="untrimmed", trim=False)
        if n:
            self.update_metrics(outputs[:n], metrics="cut", trim=False)
        self.update_metrics(outputs[:n].mean(), n, metrics="loss")

    def on_validation_epoch_end(self) -> None:
        self.update_metrics(torch.ones(9), metrics="at_end")  # the last batch, which has padding, is over
        super().on_validation_epoch_end()

    def _err(self) -> None:
        for error, given, options in (
            (BatchError, [torch.zeros(9)], {"metrics": "mean"}),
            (BatchError, [], {"metrics": "mean", "value": torch.zeros(8)}),
            (UpdateError, [torch.tensor(1.0), 2], {"metrics": "loss"}),
        ):
            with pytest.raises(error) as caught:
                self.update_metrics(*given, **options)
            self.mistakes.append(str(caught.value))


class Pixels(Numbers):
    """A batch that is a dict; the loss is weighted by the target."""

    def split_batch(self, batch: Any) -> Any:
        return batch["x"], batch["y"]

    def metric_inputs(self, outputs: Tensor, target: Tensor, batch: Any) -> Any:
        return {"value": batch["x"], "preds": batch["y"], "target": target}

    def batch_weight(self, target: Tensor, batch: Any) -> Tensor:
        assert len(target) == len(batch["x"]) == len(batch["id"])
        return target.sum()


class Forgetful(Numbers):
    """Its hook does not call the mixin's."""

    def on_validation_batch_start(self, *args: Any) -> None:
        pass


class Heads(Numbers):
    """Two targets, no metrics, and the weights that the mixin gives the losses."""

    metric_inputs = ManualMetricLoggingModule.metric_inputs

    def configure_metrics(self) -> Any:
        return None

    def loss(self, outputs: Tensor, target: Any) -> Tensor:
        assert [len(part) for part in target] == [len(outputs)] * 2
        return super().loss(outputs, target[0])


class Combined(Numbers):
    """Takes the batches of two dataloaders at once."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for part in batch:
            if part is not None:
                self.update_metrics(part[0], metrics="mean")


class ByItself(Numbers):
    """Takes batches by itself."""

    def validation_step(self, dataloader_iter: Any) -> None:
        batch, _, _ = next(dataloader_iter)
        self.update_metrics(batch[0], metrics="mean")


class Seen(Metric):
    """What this rank was fed, never synced."""

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.fed: list[float] = []

    def update(self, value: Tensor) -> None:
        self.fed += value.tolist()

    def compute(self) -> Tensor:
        return torch.tensor(0.0)


class Fed(Numbers):
    """Feeds a metric that keeps what it was fed, and no loss."""

    def configure_metrics(self) -> Any:
        return {"seen": Seen()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.update_metrics(self(batch[0]))


class Own(DistributedSampler):
    """A sampler that we cannot see through."""

    def __iter__(self) -> Any:
        return iter(list(super().__iter__())[::-1])


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(list(numbers(4)))


class Dicts(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return {"x": x, "y": y, "id": f"row {i}"}


def numbers(rows: int) -> TensorDataset:
    """1, 2, ..., and classes 1, 2, 0, 1 ..."""
    values = torch.arange(1, rows + 1)
    return TensorDataset(values.float(), values % 3)


class TwoTargets(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x, (x, y)


def loader(rows: int, batch_size: int = 2, **options: Any) -> DataLoader:
    return DataLoader(numbers(rows), batch_size=batch_size, **options)


def evaluated(
    trainer: Trainer, loaders: Any, *, model: Any = None, test: bool = False, fit: bool = False
) -> dict[str, Any]:
    """What one evaluation gave on this process."""
    model = Numbers() if model is None else model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if fit:
            trainer.fit(model, loader(5), loaders)
        else:
            (trainer.test if test else trainer.validate)(model, loaders, verbose=False)
    said = [one.message for one in caught if issubclass(one.category, MetricMixinWarning)]
    return {
        **{key: value.sum().item() for stage in ("train", "val", "test") for key, value in _results(model, stage)},
        "forwarded": model.forwarded,
        "losses": model.losses,
        "said": [text for text in map(str, said) if "no scalar" not in text],
    }


def _results(model: Any, stage: Any) -> Any:
    return model.metric_results[stage].items()


def on_two(rank: int, folder: str) -> dict[str, Any]:
    """Every case on two processes, one after the other."""

    def trainer(**options: Any) -> Trainer:
        return ranks_trainer(folder, 2, **options)

    own = {n: loader(n, sampler=Own(numbers(n))) for n in (7, 8)}
    shuffled = loader(5, sampler=DistributedSampler(numbers(5), shuffle=True, seed=3))
    dropping = loader(9, drop_last=True, sampler=DistributedSampler(numbers(9), shuffle=False, drop_last=True))
    fitting = trainer(max_epochs=1, num_sanity_val_steps=2)
    results = {
        "21": evaluated(trainer(), loader(21, 4)),
        "21 inexact": evaluated(trainer(), loader(21, 4), model=Numbers(exact_eval=False)),
        "5": evaluated(trainer(), loader(5), test=True),
        "5 one by one": evaluated(trainer(), loader(5, 1)),
        "5 and 9": evaluated(trainer(), [loader(5), loader(9)]),
        "shuffled": evaluated(trainer(use_distributed_sampler=False), shuffled),
        "dropping": evaluated(trainer(use_distributed_sampler=False), dropping),
        "limited": evaluated(trainer(limit_val_batches=1), loader(7)),
        "fit": evaluated(fitting, loader(5), fit=True),
        "9 after fit": evaluated(fitting, loader(9)),
        "7 own": evaluated(trainer(use_distributed_sampler=False), own[7]),
        "8 own": evaluated(trainer(use_distributed_sampler=False), own[8]),
        "stream": evaluated(trainer(), DataLoader(Stream(), batch_size=2)),
        "dicts": evaluated(trainer(), DataLoader(Dicts(*numbers(5).tensors), batch_size=2), model=Pixels()),
        "heads": evaluated(trainer(), DataLoader(TwoTargets(*numbers(7).tensors), batch_size=2), model=Heads()),
        "combined": evaluated(trainer(), CombinedLoader([loader(5), loader(8)], "max_size"), model=Combined()),
        "by itself": evaluated(trainer(), loader(5), model=ByItself()),
        "bf16": evaluated(trainer(precision="bf16-true"), loader(5), test=True),
    }
    by_hand = ByHand()
    results["by hand"] = evaluated(trainer(), loader(7), model=by_hand)
    results["by hand"] |= {"mistakes": by_hand.mistakes, "counted": by_hand.counted}
    with pytest.raises(ForgottenSuperError) as caught:
        evaluated(trainer(), loader(5), model=Forgetful())
    results["forgetful"] = str(caught.value)
    return results


def on_three(rank: int, folder: str) -> dict[str, Any]:
    """Ranks that get padding alone, in a batch or from the first."""
    fed = Fed()
    few = evaluated(ranks_trainer(folder, 3), loader(2), model=fed)
    return {
        "7": evaluated(ranks_trainer(folder, 3), loader(7)),
        "2": few["forwarded"],
        "2 fed": fed.val_metrics["seen"].fed,
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two ranks found, by case."""
    ranks = run_ranks(on_two, str(tmp_path_factory.mktemp("ranks")), timeout=100)
    return {case: [rank[case] for rank in ranks] for case in ranks[0]}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """What each of three ranks found, by case."""
    ranks = run_ranks(on_three, str(tmp_path_factory.mktemp("ranks")), world_size=3, timeout=100)
    return {case: [rank[case] for rank in ranks] for case in ranks[0]}


def check(ranks: Any, **expected: Any) -> None:
    """Each rank has these values, under keys whose ``/`` is written ``_``."""
    for found in ranks:
        values = {key.replace("/", "_"): value for key, value in found.items()}
        assert {key: values[key] for key in expected} == pytest.approx(expected)


def test_twenty_one_rows_are_twenty_one(two):
    """W7: 21 rows on two ranks; their mean is 11, their loss as well; without ``exact_eval`` the first counts twice."""
    check(two["21"], val_rows=21, val_mean=11, val_loss=11)
    check(two["21 inexact"], val_rows=22, val_mean=(231 + 1) / 22, val_loss=(231 + 1) / 22)


def test_two_processes_and_one_give_the_same(two, tmp_path):
    """The values of 5 rows are those of one process, in test as well: a mean of 3, not of 2.667."""
    alone = evaluated(make_trainer(tmp_path), loader(5), test=True)
    check([alone, *two["5"]], test_rows=5, test_mean=3, test_loss=3)


def test_a_batch_of_padding_alone_runs_forward_and_feeds_nothing(two):
    """Rank 1 has rows 2, 4 and a repeated 1: it runs three steps, and the loss of the third is a 0."""
    check(two["5 one by one"], val_rows=5, val_mean=3, val_loss=3)
    assert [rank["forwarded"] for rank in two["5 one by one"]] == [[1, 1, 1], [1, 1, 1]]
    assert [rank["losses"] for rank in two["5 one by one"]] == [[1, 3, 5], [2, 4, 0]]


def test_forward_has_all_rows_and_the_loss_those_that_count(two):
    """The last batch of rank 1 has rows 18, 20 and a repeated 1, which ``forward`` saw and the loss did not."""
    assert [rank["forwarded"] for rank in two["21"]] == [[4, 4, 3], [4, 4, 3]]
    assert [rank["losses"] for rank in two["21"]] == [[4, 12, 19], [5, 13, (18 + 20) / 2]]


def test_each_loader_by_itself(two):
    """Loaders of 5 and 9 rows, both with a padding row."""
    keys = {"val_rows_dataloader_idx": (5, 9), "val_mean_dataloader_idx": (3, 5), "val_loss_dataloader_idx": (3, 5)}
    check(two["5 and 9"], **{f"{key}_{i}": value for key, values in keys.items() for i, value in enumerate(values)})


def test_shuffled_dropped_and_limited(two):
    """A shuffled order has its padding at the end too; what a sampler, a loader or a limit drops is no padding."""
    check(two["shuffled"], val_rows=5, val_mean=3, val_loss=3)
    check(two["dropping"], val_rows=8, val_mean=4.5)
    check(two["limited"], val_rows=4, val_mean=2.5)


def test_training_counts_what_it_trains_on(two):
    """In ``fit``, the repeated row of training counts, and none of validation, nor of a ``validate`` after it."""
    check(two["fit"], train_rows=6, val_rows=5, val_mean=3, val_loss=3)
    check(two["9 after fit"], val_rows=9, val_mean=5, val_loss=5)


def test_steps_by_hand(two):
    """``update_metrics`` trims, ``trim=False`` does not, and ``counted_rows`` says what counts: 7 rows, 1 repeated."""
    check(two["by hand"], val_rows=7, val_mean=4, val_loss=4, val_untrimmed=28 + 1, val_cut=28, val_at_end=18)
    assert [rank["counted"] for rank in two["by hand"]] == [[2, 2], [2, 1]]
    assert two["by hand"][0]["mistakes"] == []
    argument, keyword, loss = two["by hand"][1]["mistakes"]
    common = "expected 2 rows, of which 1 are no padding, got Tensor of shape"
    assert f"argument 0 of `update_metrics`: {common} (9,)" in argument
    assert f"`update_metrics(value=...)`: {common} (8,)" in keyword
    assert "the weight is 2, but of the batch's 2 rows only 1 are no padding" in loss
    assert all("`self.counted_rows`" in message and "trim=False" in message for message in (argument, keyword, loss))


def test_a_batch_that_is_a_dict_and_a_weight_of_its_own(two):
    """``metric_inputs`` and ``batch_weight`` get the batch without padding; the weights are 1, 2, 0, 1, 2."""
    losses = [((1 + 3) / 2, 1 + 0), ((2 + 4) / 2, 2 + 1), (5, 2)]
    check(two["dicts"], val_rows=5, val_mean=3, val_loss=sum(a * b for a, b in losses) / 6)


def test_the_weight_of_a_batch_is_its_rows_that_count(two):
    """Where a target is two tensors, whose rows the inputs tell on one process, the loss is the mean of 1 to 7."""
    check(two["heads"], val_loss=4)


def test_half_precision(two):
    """Rows are left out under ``bf16-true`` as well."""
    check(two["bf16"], test_rows=5, test_mean=3, test_loss=3)


def test_what_cannot_be_seen_through_is_said_once_with_its_number(two):
    """A sampler of one's own: 7 rows leave one in doubt, said on rank 0; 8 rows and a stream leave none."""
    first, second = two["7 own"]
    assert len(first["said"]) == 1
    for words in ("Dataloader 0 of stage 'val' (Own)", "all 2 processes", "Rows that may count twice: 1. "):
        assert words in first["said"][0]
    check(two["7 own"], val_rows=8)
    assert second["said"] == []
    for case in ("combined", "by itself"):
        (message,) = [one for one in two[case][0]["said"] if "count twice" in one]
        assert "Dataloader 0 of stage 'val' (DistributedSampler)" in message
        assert "Rows that may count twice: 1. " in message
    check(two["combined"], val_mean=(15 + 1 + 36) / 14)
    quiet = ("8 own", "stream", "21", "5 and 9", "21 inexact", "fit")
    assert [rank["said"] for case in quiet for rank in two[case]] == [[]] * (2 * len(quiet))


def test_a_forgotten_super_is_an_error_where_padding_would_count(two):
    """Both ranks raise it, so that none waits."""
    for message in two["forgetful"]:
        assert "on_validation_batch_start" in message
        assert "rows that a sampler repeats as padding would count" in message


def test_ranks_with_nothing_but_padding(three):
    """2 rows on 3 ranks: the third runs its step and feeds nothing. 7 rows in twos: two ranks end with padding."""
    assert three["2"] == [[1], [1], [1]]
    assert three["2 fed"] == [[1], [2], []]
    check(three["7"], val_rows=7, val_mean=4, val_loss=4)
    assert [rank["losses"] for rank in three["7"]] == [[2.5, 7], [3.5, 0], [4.5, 0]]


def test_counted_rows_on_one_process(tmp_path):
    """All rows of the batch, from the dataloader or the batch itself; an error where there is no such batch."""
    found = []

    class Rows(Numbers):
        def training_step(self, batch, batch_idx):
            with pytest.raises(StageError, match=r"Rows\.counted_rows .* none is running \(stage: 'train'\)"):
                _ = self.counted_rows
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            found.append(self.counted_rows)
            return super().validation_step(batch, batch_idx)

        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            with pytest.raises(StageError, match="'val'"):
                _ = self.counted_rows

        def on_after_batch_transfer(self, batch, dataloader_idx):
            if self.trainer.validating:  # the batch before is over, and this one has not begun
                with pytest.raises(StageError, match="none is running"):
                    _ = self.counted_rows
            return batch

    class Scalars(Numbers):
        def validation_step(self, batch, batch_idx):
            with pytest.raises(BatchError, match=r"Scalars\.counted_rows: neither"):
                _ = self.counted_rows

    model = Rows()
    trainer = make_trainer(tmp_path, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricMixinWarning)
        trainer.fit(model, loader(3), loader(5))
        trainer.validate(model, DataLoader(Stream(), batch_size=3), verbose=False)
        make_trainer(tmp_path).validate(Scalars(), DataLoader([1, 2], batch_size=None), verbose=False)
    assert found == [2, 2, 2, 2, 1, 3, 1]
    with pytest.raises(StageError, match=r"\(stage: None\)"):
        _ = model.counted_rows


def test_dataloaders_are_looked_at_in_each_epoch(tmp_path):
    """Loaders that are made anew with other sizes are seen, though the hook of an epoch's start lacks its super()."""
    found = []

    class Growing(Numbers):
        def val_dataloader(self):
            return loader(3 + 2 * self.current_epoch)

        def on_validation_epoch_start(self):
            pass

        def validation_step(self, batch, batch_idx):
            found.append(self.counted_rows)
            return super().validation_step(batch, batch_idx)

    trainer = make_trainer(tmp_path, num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricMixinWarning)
        trainer.fit(Growing(), loader(2))
    assert found == [2, 1, 2, 2, 1]
