"""A Trainer on several processes: values of all rows, one exchange an epoch, checkpoints of each rank's rows."""

import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchmetrics import CatMetric, MaxMetric, MeanMetric, PearsonCorrCoef, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from metric_mixin import LabelRangeError, MetricLogging, MetricMixinWarning, RankError, SyncError
from metric_mixin.testing import run_ranks
from tests.support import CLASSES, FULLY_SHARDS_ON_CPU, Replay, data, make_trainer, pairs, ranks_trainer, unseen
from tests.test_resume import ROWS, TOTAL, WHOLE, Sums, val_rows

BESIDE = ["ignore:.*is no scalar and is not logged", "ignore:Using `DistributedSampler` with the dataloaders"]
pytestmark = [pytest.mark.filterwarnings(one) for one in BESIDE]


class Given(Replay):
    """Outputs are the inputs; without the parameters of the classifier, which DDP would miss in the loss."""

    def __init__(self) -> None:
        super().__init__()
        del self.net


class Many(Given):
    """Metrics with every kind of state; a key of its own; what was computed in each epoch."""

    metric_logging = MetricLogging(track_best={"val/acc": "max"}, pooled=True, figures=("val/confusion", "val/acc"))

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[tuple[str, dict[str, Any]]] = []
        self.log_own = False

    def configure_metrics(self) -> Any:
        return {
            "acc": MulticlassAccuracy(4, average="micro"),
            "f1": MulticlassF1Score(4),
            "each": ClasswiseWrapper(MulticlassAccuracy(4, average=None)),
            "confusion": MulticlassConfusionMatrix(4),
            "auroc": MulticlassAUROC(4),
            "range": MinMaxMetric(MulticlassAccuracy(4, average="micro")),
            "top": MaxMetric(),
            "pearson": PearsonCorrCoef(),
            "scores": CatMetric(),
        }

    def metric_inputs(self, outputs: Tensor, target: Tensor, batch: Any) -> Any:
        return {"preds": outputs, "target": target, "value": outputs[:, 0]}

    def configure_stage_metrics(self, stage: str) -> Any:
        metrics = self.configure_metrics()
        del metrics["pearson"]  # takes values for its predictions
        return metrics

    def on_metrics_computed(self, stage: str, values: Any) -> None:
        self.epochs.append((stage, dict(values)))
        if self.log_own:
            self.log(f"{stage}_own", 1.0)


def rows_of(rows: int, batch_size: int = 4, seed: int = 0, **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(*data(rows, seed)), batch_size=batch_size, **options)


def caught_while(run: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(one.message) for one in caught]


def noted_collectives() -> list[str]:
    """The names of the collectives that are called from now on."""
    calls: list[str] = []
    for name in ("all_gather", "all_reduce", "barrier", "broadcast", "all_gather_object"):
        original = getattr(dist, name)

        def called(*args: Any, _original: Any = original, _name: str = name, **kwargs: Any) -> Any:
            calls.append(_name)
            return _original(*args, **kwargs)

        setattr(dist, name, called)
    return calls


def fitted(rank: int, folder: str) -> dict[str, Any]:
    """Two epochs of 21 and 13 rows, validation and test, with the collectives of each kind that were called."""
    calls = noted_collectives()
    module = Many()
    module.log_own = True
    trainer = ranks_trainer(folder, 2, max_epochs=2, callbacks=[EarlyStopping("val/acc", mode="max", patience=9)])
    said = caught_while(lambda: trainer.fit(module, rows_of(21), rows_of(13, seed=1)))
    kept = dict(trainer.callback_metrics)
    results: list[Any] = []
    loaders = [rows_of(5, seed=2), rows_of(9, seed=3)]
    said += caught_while(lambda: results.append(trainer.validate(module, rows_of(13, seed=1), verbose=False)))
    said += caught_while(lambda: results.append(trainer.test(module, loaders, verbose=False)))
    validated, tested = results
    return {
        "epochs": module.epochs,
        "callback": kept,
        "validated": validated,
        "tested": tested,
        "said": said,
        "calls": calls,
        "logged": trainer.logger.metrics,
        "figures": [(figure["key"], figure["step"]) for figure in trainer.logger.figures],
        "rows": {stage: module.metric_report(stage).rows for stage in ("train", "val", "test")},
    }


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    return run_ranks(fitted, str(tmp_path_factory.mktemp("fit")), timeout=100)


def expected(x: Tensor, y: Tensor) -> dict[str, Any]:
    """By scikit-learn and by hand, over exactly these rows."""
    return {
        "acc": accuracy_score(y, x.argmax(1)),
        "confusion": torch.tensor(confusion_matrix(y, x.argmax(1), labels=range(4))),
        "loss": nn.functional.cross_entropy(x, y).item(),
        "top": x[:, 0].max().item(),
        "scores": x[:, 0].sort().values,
    }


def check(values: Any, prefix: str, x: Tensor, y: Tensor, suffix: str = "") -> None:
    for name, wanted in expected(x, y).items():
        found = values[f"{prefix}{name}{suffix}"]
        found = found.sort().values if name == "scores" else found
        torch.testing.assert_close(found, torch.as_tensor(wanted), check_dtype=False, rtol=1e-5, atol=1e-6, msg=name)


def test_each_epoch_has_the_values_of_all_rows_on_every_rank(fits):
    """Validation and test count each row once; training counts those that its sampler repeats, 22 of 21."""
    for rank in fits:
        assert [stage for stage, _ in rank["epochs"]] == ["val", "train"] * 2 + ["val", "test"]
        for stage, values in rank["epochs"]:
            if stage == "val":
                check(values, "val/", *data(13, 1))
            if stage == "train":
                assert values["train/confusion"].sum() == 22
        assert rank["rows"] == {"train": {None: 22}, "val": {None: 13}, "test": {0: 5, 1: 9}}
        assert rank["callback"]["val/acc"].item() == pytest.approx(expected(*data(13, 1))["acc"])
    for (_, values), (_, others) in zip(*(rank["epochs"] for rank in fits), strict=True):
        torch.testing.assert_close(values, others, equal_nan=True, rtol=0, atol=0)
    assert fits[0]["validated"] == fits[1]["validated"]


def test_several_dataloaders_are_each_exact_and_pooled_over_all_ranks(fits):
    """W6 on ranks: 5 and 9 rows, and their 14."""
    (x1, y1), (x2, y2) = data(5, 2), data(9, 3)
    for rank in fits:
        _, values = rank["epochs"][-1]
        check(values, "test/", x1, y1, "/dataloader_idx_0")
        check(values, "test/", x2, y2, "/dataloader_idx_1")
        check(values, "test/", torch.cat([x1, x2]), torch.cat([y1, y2]))
        first, second = rank["tested"]
        assert first["test/acc/dataloader_idx_0"] == pytest.approx(expected(x1, y1)["acc"])
        assert "test/acc/dataloader_idx_1" in second
        assert "test/acc/dataloader_idx_1" not in first


def test_auroc_of_all_rows_is_no_mean_of_ranks(fits):
    """Lists of predictions are joined: scikit-learn over all rows, one class against the rest, the fourth has none."""
    x, y = data(13, 1)
    probabilities = x.softmax(1)
    scores = [roc_auc_score((y == i).int(), probabilities[:, i]) for i in range(CLASSES)]
    for rank in fits:
        assert rank["epochs"][0][1]["val/auroc"].item() == pytest.approx(sum(scores) / 4, abs=1e-5)


def test_rank_zero_logs_what_one_process_would(fits):
    """The rows of the logger have the epoch's values once; other ranks write nothing."""
    rows = [row for row in fits[0]["logged"] if "val/acc" in row]
    assert [row["epoch"] for row in rows[:2]] == [0, 1]
    assert [row["val/acc"] for row in rows] == pytest.approx([expected(*data(13, 1))["acc"]] * 3)


def test_both_ranks_call_the_same_collectives_in_the_same_order(fits):
    """H1: what hangs otherwise."""
    assert fits[0]["calls"] == fits[1]["calls"]
    assert "all_reduce" in fits[0]["calls"]


def test_one_process_draws(fits):
    """O6: rank zero has a picture for each epoch and for ``validate``, others none; no collective is for them."""
    steps = [row["step"] for row in fits[0]["logged"] if "val/acc" in row]
    assert len(steps) == 3
    assert fits[0]["figures"] == [(key, step) for step in steps for key in ("val/confusion", "val/acc")]
    assert fits[1]["figures"] == []
    assert fits[0]["calls"] == fits[1]["calls"]


def test_no_advice_to_sync_for_our_keys_and_still_for_the_users_own(fits):
    """H4: ``sync_dist=True`` is recommended for the user's key alone."""
    advised = [[text.split("'")[1] for text in rank["said"] if "sync_dist=True" in text] for rank in fits]
    assert set(advised[0]) == {"train_own", "val_own", "test_own"}
    assert advised[1] == []  # Lightning advises on rank 0


# Ranks that differ


class Differs(Given):
    """One rank of two has something else."""

    def __init__(self, rank: int, what: str) -> None:
        super().__init__()
        self.rank, self.what = rank, what
        if what == "options":
            self.metric_logging = MetricLogging(on_empty=["skip", "nan"][rank])

    def configure_metrics(self) -> Any:
        if self.what == "metric":
            return {"acc": MulticlassAccuracy(4, average=["micro", "macro"][self.rank])}
        return {"acc": MulticlassAccuracy(4, average="micro"), "own": SumMetric()}

    def metric_inputs(self, outputs: Tensor, target: Tensor, batch: Any) -> Any:
        return {"preds": outputs, "target": target, "value": target.float()}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        if self.what == "fault" and self.rank == 1:
            self.val_metrics._ranges.raise_deferred = self.deferred  # as where labels are checked late, on a GPU
        if self.what == "stage" and self.rank == 1 and batch_idx == 0:
            self.log_metrics("train")
        if self.what == "partly" and self.rank == 1:
            return None
        return super().validation_step(batch, batch_idx)

    def deferred(self) -> None:
        raise LabelRangeError("Metric 'acc' was given the label 7")


class Stream(IterableDataset):
    """Rows of rank 0; none of rank 1."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __iter__(self) -> Any:
        return iter([] if self.rank else [(x, y) for x, y in zip(*data(7), strict=True)])


def differing(rank: int, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for what in ("metric", "options", "stage", "fault"):
        module = Differs(rank, what)
        try:
            caught_while(lambda m=module: ranks_trainer(folder, 2).validate(m, rows_of(8), verbose=False))
        except Exception as error:
            found[what] = type(error).__name__, str(error)
    for what, loader in {"partly": rows_of(8), "stream": DataLoader(Stream(rank), batch_size=2)}.items():
        module = Differs(rank, what)
        said = caught_while(lambda m=module, d=loader: ranks_trainer(folder, 2).validate(m, d, verbose=False))
        found[what] = module.metric_results["val"], [text for text in said if "was not updated" in text]
    return found


def test_ranks_that_differ_end_with_the_same_error(tmp_path):
    """Another setting, option or stage, or a fault on one rank, on both ranks; a rank without rows is no difference."""
    first, second = run_ranks(differing, str(tmp_path), timeout=100)
    for what in ("metric", "options", "fault"):
        assert first[what] == second[what]
    assert "metric 'acc'.average is 'micro' on rank 0, 'macro' on rank 1" in first["metric"][1]
    assert "option on_empty is 'skip' on rank 0, 'nan' on rank 1" in first["options"][1]
    assert first["fault"] == ("LabelRangeError", "On rank 1: Metric 'acc' was given the label 7")
    assert first["stage"][0] == second["stage"][0] == "SyncError"
    assert "called by is the epoch's end on rank 0, log_metrics on rank 1" in first["stage"][1]
    x, y = data(8)
    for rank in (first, second):
        values, said = rank["partly"]
        assert values["val/acc"].item() == pytest.approx(accuracy_score(y[::2], x[::2].argmax(1)))
        assert said == []
        values, said = rank["stream"]
        assert values["val/acc"].item() == pytest.approx(accuracy_score(data(7)[1], data(7)[0].argmax(1)))
        assert values["val/own"] == data(7)[1].sum()


def absent(rank: int, folder: str) -> list[Any]:
    """Evaluations in which rank 0, rank 1 and both have a dataloader of length zero, whose loop Lightning skips."""
    found = []
    cases = (("validate", [0], "raise"), ("test", [1], "raise"), ("validate", [0, 1], "raise"), ("test", [0, 1], "nan"))
    for method, without, on_empty in cases:
        module = Many()
        module.metric_logging = MetricLogging(on_empty=on_empty)
        module.allow_zero_length_dataloader_with_multiple_devices = True
        trainer = ranks_trainer(folder, 2, use_distributed_sampler=False)
        loader = DataLoader(TensorDataset(*data(0 if rank in without else 7)), batch_size=2)
        evaluate = partial(getattr(trainer, method), module, loader, verbose=False)
        caught_while(evaluate)
        found.append((module.epochs, dict(trainer.callback_metrics), trainer.logger.metrics))
    return found


def test_a_rank_without_a_batch_takes_part_in_an_evaluation_that_lightning_skips_there(tmp_path):
    """Rank 0 logs the values although it had no row; where nobody has one, nothing is computed and nothing raised."""
    ranks = run_ranks(absent, str(tmp_path), timeout=60)
    for validated, tested, *nobody in ranks:
        for stage, (epochs, callback, _) in (("val", validated), ("test", tested)):
            ((of, values),) = epochs
            assert of == stage
            check(values, f"{stage}/", *data(7))
            assert callback[f"{stage}/acc"] == values[f"{stage}/acc"]
        assert nobody == [([], {}, [])] * 2
    for row, stage in zip(ranks[0][:2], ("val", "test"), strict=True):
        (logged,) = row[2]
        assert logged[f"{stage}/loss"] == pytest.approx(expected(*data(7))["loss"])
        assert (logged["epoch"], logged["step"]) == (0, 0)


def dying(rank: int, folder: str) -> None:
    class Dies(Given):
        def configure_metrics(self) -> Any:
            return {"acc": MulticlassAccuracy(4)}

        def on_validation_epoch_end(self) -> None:
            if rank == 1:
                os._exit(3)
            super().on_validation_epoch_end()

    ranks_trainer(folder, 2).validate(Dies(), rows_of(8), verbose=False)


def test_a_rank_that_dies_ends_the_other_with_our_message(tmp_path):
    """The other rank says what it waited for, in seconds and not in the limit of the group."""
    started = time.monotonic()
    with pytest.raises(RankError) as caught:
        run_ranks(dying, str(tmp_path), timeout=60)
    assert time.monotonic() - started < 50
    assert "Rank 1 died with exit code 3" in str(caught.value)
    assert "SyncError: Rank 0 could not exchange metrics of stage val of epoch 0 with the other ranks" in str(
        caught.value
    )


# Who has rows of his own


class Past(Given):
    """Feeds its metrics past ``update_metrics``, as one is used to."""

    def configure_metrics(self) -> Any:
        return {"rows": MulticlassConfusionMatrix(4), "acc": MulticlassAccuracy(4, average="micro")}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_metrics.update(*batch)


class Images(TensorDataset):
    """An image of three channels and a dict, which no collate function stacks."""

    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x.repeat(3, 1), {"label": y}


class Boxes(Given):
    """Batches as detection has them: a tuple of images and one of dicts; its metrics look at the whole batch."""

    def configure_metrics(self) -> Any:
        return {"rows": MulticlassConfusionMatrix(4)}

    def forward(self, images: Any) -> Tensor:
        return torch.stack([image[0] for image in images]) + 0 * self.anchor

    def loss(self, outputs: Tensor, target: Any) -> Tensor:
        return super().loss(outputs, torch.stack([one["label"] for one in target]))

    def metric_inputs(self, outputs: Tensor, target: Any, batch: Any) -> Any:
        images, dicts = batch
        assert len(images) == len(dicts) == len(outputs)
        return outputs, torch.stack([one["label"] for one in dicts])


def as_they_are(rows: Any) -> Any:
    return tuple(zip(*rows, strict=True))


class Grouped(Given):
    """A metric with a group of its own, handed out for each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.group = dist.group.WORLD

    def configure_metrics(self) -> Any:
        if not hasattr(self, "kept"):
            self.__dict__["kept"] = {"rows": MulticlassConfusionMatrix(4, process_group=dist.new_group([0, 1]))}
        return self.kept


def beside(rank: int, folder: str) -> dict[str, Any]:
    def evaluated(module: Any, loaders: Any, trainer: Any) -> Any:
        said = caught_while(lambda: trainer.validate(module, loaders, verbose=False))
        values = {key: int(value.sum()) for key, value in module.metric_results["val"].items() if "rows" in key}
        return values, module.metric_report("val").rows, [text for text in said if "padding" in text]

    images = DataLoader(Images(*data(21)), batch_size=4, collate_fn=as_they_are)
    mesh = {"use_distributed_sampler": True, "strategy": ModelParallelStrategy()}
    split = {"strategy": ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)}
    found: dict[str, Any] = {
        "past": evaluated(Past(), rows_of(21), ranks_trainer(folder, 2)),
        "boxes": evaluated(Boxes(), images, ranks_trainer(folder, 2)),
        "grouped": evaluated(Grouped(), [rows_of(4), rows_of(6)], ranks_trainer(folder, 2)),
    }
    if FULLY_SHARDS_ON_CPU:
        found["one model"] = evaluated(Sharded(), rows_of(21), ranks_trainer(folder, 2, **mesh))
        found["two models"] = evaluated(Sharded(), rows_of(21), ranks_trainer(folder, 2, **split))
    if rank == 0:  # as Lightning advises
        found["alone"] = evaluated(Many(), rows_of(21), make_trainer(folder))
    return found


class Sharded(Boxes):
    """Its parameters lie on a mesh of devices."""

    forward, loss, metric_inputs = Given.forward, Given.loss, Given.metric_inputs

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def configure_model(self) -> None:
        fully_shard(self, mesh=self.device_mesh["data_parallel"])


def test_rows_count_once_whoever_has_them(tmp_path):
    """Detection's batches, groups of a metric's own, ranks of one model with the same rows, a test on one process."""
    first, second = run_ranks(beside, str(tmp_path), timeout=100)
    assert first.pop("alone")[1] == {None: 21}
    (message,) = first["past"][2]
    assert "'val' were fed outside of their batches, or not by `update_metrics`" in message
    assert "1 in all" in message
    for rank in (first, second):
        assert rank["past"][:2] == ({"val/rows": 22}, {None: None})
        assert rank["boxes"] == ({"val/rows": 21}, {None: 21}, [])
        assert rank["grouped"][0] == {"val/rows/dataloader_idx_0": 4, "val/rows/dataloader_idx_1": 6}
        assert ("one model" in rank) == FULLY_SHARDS_ON_CPU
        assert all(
            rank[name] == ({"val/rows": 21}, {None: 21}, []) for name in rank if name.endswith(("model", "models"))
        )


# Checkpoints


class RankSums(Sums):
    """Its rows are dealt to the ranks; notes the collectives of the mixin while a checkpoint is saved."""

    metric_logging = MetricLogging(track_best={"train/mean": "max"})

    def __init__(self, calls: list[str] | None = None) -> None:
        super().__init__()
        self.calls: list[str] = [] if calls is None else calls
        self.saves: list[list[str]] = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        before = len(self.calls)
        super().on_save_checkpoint(checkpoint)
        self.saves.append(self.calls[before:])

    def configure_stage_metrics(self, stage: str) -> Any:
        return super().configure_metrics() | ({"pearson": PearsonCorrCoef()} if stage == "train" else {})

    def metric_inputs(self, outputs: Tensor, target: Tensor, batch: Any) -> Any:
        return {"value": outputs, "preds": outputs[:, 0], "target": outputs[:, 0] ** 2}


def dealt(rank: int, ranks: int, kind: Any = StatefulDataLoader) -> Any:
    """The twelve rows, dealt to the ranks in turn, two a batch."""
    rows = TensorDataset(ROWS[:, None])
    return kind(rows, batch_size=2, sampler=DistributedSampler(rows, ranks, rank, shuffle=False))


class Elastic:
    """Goes on at the row where it was, whatever the number of ranks; two rows a batch and rank."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks, self.start = rank, ranks, 0

    def __len__(self) -> int:  # without one Lightning takes a batch ahead of the one that runs
        return len(ROWS) // (2 * self.ranks)

    def __iter__(self) -> Any:
        for start in range(self.start, len(ROWS), 2 * self.ranks):
            self.start = start + 2 * self.ranks
            yield (ROWS[start + self.rank : self.start : self.ranks, None],)

    def state_dict(self) -> dict[str, int]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["start"]


def own_sampler(folder: Any, **options: Any) -> Any:
    return ranks_trainer(folder, 2, use_distributed_sampler=False, num_sanity_val_steps=0, **options)


def resumed(rank: int, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {"saves": {}}
    calls = noted_collectives()
    for name, options in {
        "mid": {"every_n_train_steps": 2},
        "val": {"save_on_train_epoch_end": False},
        "end": {"save_on_train_epoch_end": True},
        "weights": {"every_n_train_steps": 2, "save_weights_only": True},
    }.items():
        place = Path(folder) / name
        keep = ModelCheckpoint(place, save_top_k=-1, filename="{step}", auto_insert_metric_name=False, **options)
        whole = RankSums(calls)
        run = own_sampler(folder, max_epochs=2, callbacks=[keep], enable_checkpointing=True)
        run.fit(whole, dealt(rank, 2), val_rows())
        run.save_checkpoint(place / "after")
        found["saves"][name] = whole.saves
        if name == "weights":
            continue
        pearson = whole.metric_results["train"]["train/pearson"]
        for step in (2, 4) if name == "mid" else (3,):
            path = place / f"{step}.ckpt"
            module = RankSums()
            said = caught_while(
                lambda m=module, p=path: own_sampler(folder, max_epochs=2).fit(
                    m, dealt(rank, 2), val_rows(), ckpt_path=p
                )
            )
            said = [text for text in said if "Resumed within" in text]
            assert module.metric_report("train").rows == {None: len(ROWS)}
            assert module.metric_results["train"]["train/mean_best"] == TOTAL / 12
            found[name, step] = whole.sums, module.sums, said, pearson, module.metric_results["train"]["train/pearson"]
    return found


@pytest.fixture(scope="module")
def resumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    return folder, run_ranks(resumed, str(folder), timeout=100)


def test_a_resume_on_two_ranks_equals_the_uninterrupted_run(resumes):
    """W8: each rank gets its own rows back, in mid-epoch with a stateful loader, and where no batch was left."""
    folder, ranks = resumes
    for rank in ranks:
        for whole, again, said, pearson, once_more in (rank[key] for key in rank if key != "saves"):
            assert whole == [WHOLE, WHOLE]
            assert again == whole[-len(again) :]
            assert said == []
            torch.testing.assert_close(pearson, once_more)
    entry = torch.load(folder / "mid" / "2.ckpt", weights_only=True)["metric_mixin"]
    kept = [states["0"]["metrics"]["sum"][""]["state"]["sum_value"].item() for states in entry["train"]]
    assert kept == [1 + 3 + 5 + 7, 2 + 4 + 6 + 8]
    assert entry["whole"]


def test_only_a_checkpoint_within_an_epoch_waits_for_other_ranks(resumes):
    """Two gathers while one runs; none of ours between epochs, after ``fit``, and for a file of weights alone."""
    folder, ranks = resumes
    gathers, none = ["all_gather"] * 2, list[str]()
    for rank in ranks:
        assert rank["saves"] == {
            "mid": [gathers, gathers, gathers, none],
            "val": [gathers, gathers, none],
            "end": [none, none, none],
            "weights": [none, none, none, none],
        }
    for name in ("mid/4.ckpt", "end/3.ckpt", "weights/4.ckpt", "mid/after"):
        entry = torch.load(folder / name, weights_only=True)["metric_mixin"]
        assert entry["best"] == {"train/mean": {"mode": "max", "value": torch.tensor(TOTAL / 12), "epoch": 0}}
        assert len(entry["train"]) == (2 if name == "mid/4.ckpt" else 0)


def elastic(rank: int, folder: str) -> None:
    keep = ModelCheckpoint(folder, every_n_train_steps=2, filename="two", save_top_k=-1)
    run = own_sampler(folder, max_epochs=1, callbacks=[keep], enable_checkpointing=True)
    run.fit(RankSums(), Elastic(rank, 2), val_rows())


def test_another_number_of_processes_gets_merged_states_where_the_reduction_allows(tmp_path):
    """Saved on two ranks, resumed on one: sums and lists go on, a state without reduction cannot; both are said."""
    run_ranks(elastic, str(tmp_path), timeout=100)
    module = RankSums()
    trainer = make_trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    with pytest.warns(MetricMixinWarning, match="Resumed within epoch 0") as caught:
        trainer.fit(module, Elastic(0, 1), val_rows(), ckpt_path=tmp_path / "two.ckpt")
    assert module.sums == [WHOLE]
    said = " ".join(str(one.message) for one in caught if one.category is MetricMixinWarning)
    assert "no states of 'pearson' as declared now, or they do not go on" in said
    assert "on 1 processes from a checkpoint of 2" in said


def from_one(rank: int, folder: str) -> tuple[Any, list[str]]:
    module = RankSums()
    trainer = own_sampler(folder, max_epochs=2)
    said = caught_while(
        lambda: trainer.fit(module, dealt(rank, 2), val_rows(), ckpt_path=Path(folder) / "one" / "6.ckpt")
    )
    return module.sums, [text for text in said if "Resumed within" in text]


def test_more_processes_than_before_go_on_from_what_one_saved(tmp_path):
    """Saved on one process at the end of a validation, resumed on two: its rows count once, on rank 0."""
    keep = ModelCheckpoint(
        tmp_path / "one", save_top_k=-1, filename="{step}", auto_insert_metric_name=False, save_on_train_epoch_end=False
    )
    one = make_trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, callbacks=[keep], enable_checkpointing=True)
    one.fit(RankSums(), dealt(0, 1, DataLoader), val_rows())
    for sums, said in run_ranks(from_one, str(tmp_path), timeout=100):
        assert sums == [WHOLE, WHOLE]
        assert said == []


class Breaks(RankSums):
    """Raises after two batches: on rank 0 at once, on rank 1 when it sees the file that rank 0 saves."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 2:
            until = time.monotonic() + 20
            while self.trainer.global_rank and not self.file.exists() and time.monotonic() < until:
                time.sleep(0.05)
            raise RuntimeError(f"broken on rank {self.trainer.global_rank}, file: {self.file.exists()}")
        return super().training_step(batch, batch_idx)


def broken(rank: int, folder: str) -> tuple[list[list[str]], list[str], Any]:
    module = Breaks(Path(folder) / "broken.ckpt")
    module.calls = noted_collectives()
    keep = OnExceptionCheckpoint(folder, filename="broken")
    trainer = own_sampler(folder, callbacks=[keep], max_epochs=1, enable_checkpointing=True)
    with pytest.raises(RuntimeError, match=f"broken on rank {rank}, file: {bool(rank)}"):
        caught_while(lambda: trainer.fit(module, dealt(rank, 2), val_rows()))
    again = RankSums()
    said = caught_while(
        lambda: own_sampler(folder, max_epochs=1).fit(
            again, dealt(rank, 2), val_rows(), ckpt_path=Path(folder) / "broken.ckpt"
        )
    )
    return module.saves, [text for text in said if "Resumed within" in text], again.sums


class Wrong(Replay):
    """Rank 1 meets a label that is none, which the device tells later; a checkpoint is due two batches after it."""

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return outputs.sum()


def wrong_label(rank: int, folder: str, where: str) -> tuple[int, str]:
    outputs, target = torch.eye(3), torch.tensor([0, 1, 1])
    right = pairs(*[(outputs, target)] * 6)
    wrong = pairs(*[(outputs, target + 7 * (rank == 1 and i == 1)) for i in range(6)])
    keep = ModelCheckpoint(
        folder, every_n_train_steps=4 if where == "checkpoint" else 1000, save_on_train_epoch_end=False
    )
    trainer = ranks_trainer(
        folder,
        2,
        max_epochs=1,
        callbacks=[keep],
        enable_checkpointing=True,
        use_distributed_sampler=False,
        strategy="ddp_find_unused_parameters_true",
    )
    with unseen(), pytest.raises(LabelRangeError) as raised:
        caught_while(lambda: trainer.fit(Wrong(), *((right, wrong) if where == "sanity-check" else (wrong,))))
    return trainer.global_step, str(raised.value)


@pytest.mark.parametrize(("where", "step"), [("sanity-check", 0), ("checkpoint", 4), ("epoch-end", 6)])
def test_a_wrong_label_that_one_rank_finds_late_is_the_same_error_on_each(tmp_path, where, step):
    """Whatever looks first, the sanity check, a checkpoint or the end of the epoch, no rank waits for another."""
    first, second = run_ranks(wrong_label, str(tmp_path), where, timeout=100)
    assert first == second
    assert first[0] == step
    assert first[1].startswith("On rank 1: ")
    assert "'acc' (MulticlassAccuracy)" in first[1]


class WrongAndBroken(Wrong):
    """And then raises an error of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 3:
            raise ValueError("my own")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("wrong", [True, False], ids=["wrong", "right"])
def test_an_exception_saves_no_rows_that_are_void(tmp_path, wrong):
    """The checkpoint is written, without rows of which some have wrong labels, and the error is the user's own."""
    outputs, target = torch.eye(3), torch.tensor([0, 1, 1])
    keep = OnExceptionCheckpoint(tmp_path, filename="broken")
    trainer = make_trainer(tmp_path, callbacks=[keep], max_epochs=1, enable_checkpointing=True)
    batches = pairs(*[(outputs, target + 7 * (wrong and i == 1)) for i in range(6)])
    with unseen(), pytest.raises(ValueError, match="my own"):
        caught_while(lambda: trainer.fit(WrongAndBroken(), batches))
    entry = torch.load(tmp_path / "broken.ckpt", weights_only=True)["metric_mixin"]
    assert [states["0"]["rows"] for states in entry["train"]] == ([] if wrong else [9])


def test_an_exception_never_waits_for_other_ranks_to_save(tmp_path):
    """Rank 0 alone fails and saves its own rows, marked so, without a collective; a resume goes on with those."""
    first, second = run_ranks(broken, str(tmp_path), timeout=100)
    assert first[0] == second[0] == [[]]
    entry = torch.load(tmp_path / "broken.ckpt", weights_only=True)["metric_mixin"]
    assert not entry["whole"]
    assert [states["0"]["metrics"]["sum"][""]["state"]["sum_value"].item() for states in entry["train"]] == [
        1 + 3 + 5 + 7
    ]
    assert "of the rows before it, the training values of this epoch cover those of rank 0 alone" in first[1][0]
    assert first[2] == second[2] == [(16, 4)]  # a stateful loader does not give the batch again that failed


def test_errors_of_this_kind_are_runtime_errors():
    """A program may catch the builtin."""
    assert issubclass(SyncError, RuntimeError)
    assert MeanMetric is not None
