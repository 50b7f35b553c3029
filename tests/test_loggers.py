"""Pictures and odd names in real back ends, read back from what they wrote."""

import csv
import gc
import json
import warnings
from glob import glob
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib import pyplot
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from metric_mixin import KeyCollisionError, MetricLogging
from metric_mixin._errors import DeclarationError
from tests.support import Replay, pairs

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged"),
    pytest.mark.filterwarnings("ignore:The font of pictures .* lacks"),  # matplotlib's own font has no Chinese
]

PNG = b"\x89PNG\r\n\x1a\n"
LABELS = ["c++", "c#", "c", "top 5", "top_5", "c/c++", "été", "日本", "F1", "f1", "100%", "a.b", "a:b"]
"""Labels of classes, each of which some back end might rewrite into another."""


class Lit(Replay):
    """Accuracy of each class and their confusion; what it sees, a test gives."""

    labels = ("cat", "dog")
    figures = ()

    def __init__(self):
        super().__init__()
        self.metric_logging = MetricLogging(class_names=self.labels, figures=self.figures)

    def configure_metrics(self):
        n = len(self.labels)
        return {"each": MulticlassAccuracy(n, average=None), "confusion": MulticlassConfusionMatrix(n)}


def batches(classes):
    """Twenty rows a class, of which ``i`` of class ``i`` are right, and the accuracy of each class."""
    target = torch.arange(classes).repeat_interleave(20)
    right = torch.arange(20).repeat(classes) < target
    preds = torch.where(right, target, (target + 1) % classes)
    one_hot = torch.nn.functional.one_hot(preds, classes).float()
    return pairs((one_hot, target)), [i / 20 for i in range(classes)]


def fit(trainer, logger, labels=("cat", "dog"), figures=(), module=None, epochs=2):
    """Train; return the expected value of each key of a class."""
    data, values = batches(len(labels))
    module = module or type("Mine", (Lit,), {"labels": tuple(labels), "figures": figures})()
    run = trainer(max_epochs=epochs, logger=logger)
    run.fit(module, data, data)
    assert run.current_epoch == epochs
    assert pyplot.get_fignums() == []
    return dict(zip([f"val/each/{label}" for label in labels], values, strict=True))


# Back ends: each makes a logger, and reads what it wrote: key to last value, and key to pictures


class TensorBoard:
    def __init__(self, folder, monkeypatch):
        self.logger = TensorBoardLogger(folder, "tb")

    def read(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.logger.finalize("success")
        events = EventAccumulator(self.logger.log_dir, size_guidance={"images": 0, "scalars": 0})
        events.Reload()
        tags = events.Tags()
        scalars = {tag: events.Scalars(tag)[-1].value for tag in tags["scalars"]}
        return scalars, {tag: [e.encoded_image_string for e in events.Images(tag)] for tag in tags["images"]}


class Csv:
    def __init__(self, folder, monkeypatch):
        self.logger = CSVLogger(folder, "csv")

    def read(self):
        root = Path(self.logger.log_dir)
        with (root / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        scalars = {key: float(value) for row in rows for key, value in row.items() if value}
        pictures = {}
        for path in sorted(root.glob("figures/**/*.png")):
            key = path.parent.relative_to(root / "figures").as_posix()
            pictures.setdefault(key, []).append(path.read_bytes())
        return scalars, pictures


class Wandb:
    """W&B offline: no network; its helper process ends with the run."""

    history = "_history"

    def __init__(self, folder, monkeypatch):
        settings = {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "DISABLE_GIT": "true"}
        settings |= {f"{name}_DIR": str(folder / name) for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT")}
        for name, value in (settings | {"ERROR_REPORTING": "false"}).items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        self.folder = folder
        self.logger = WandbLogger(save_dir=folder, offline=True)

    def read(self):
        import wandb

        self.logger.experiment.finish()
        wandb.teardown()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # W&B 0.19 leaves the socket to its helper open, which a later test would be told
        (file,) = glob(f"{self.folder}/wandb/offline-run-*/*.wandb")
        root = file.rsplit("/", 1)[0]
        scalars, pictures = {}, {}
        for (key, *rest), value in wandb_history(file):
            if rest == ["filenames"]:
                for name in value:
                    with open(f"{root}/files/{name}", "rb") as picture:
                        pictures.setdefault(key, []).append(picture.read())
            elif not rest:
                scalars[key] = value
        return scalars, pictures


def wandb_history(file):
    """Keys and values in order."""
    for record in wandb_records(file):
        for item in record.history.item:
            yield item.nested_key or [item.key], json.loads(item.value_json)


def wandb_records(file):
    """What a file has in order, which is in LevelDB's log format (W&B 0.31): 7 bytes, then blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    with open(file, "rb") as stream:
        raw = stream.read()
    at, message = 7, b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(raw[at + 4 : at + 6], "little"), raw[at + 6]
        message += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, message = Record.FromString(message), b""
            yield record


class Mlflow:
    def __init__(self, folder, monkeypatch):
        self.folder = folder
        monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        self.logger = MLFlowLogger(tracking_uri=f"sqlite:///{folder}/ml.db", artifact_location=f"{folder}/artifacts")

    def read(self):
        client, run = self.logger.experiment, self.logger.run_id
        pictures = {}
        folders = [""]
        while folders:
            for found in client.list_artifacts(run, folders.pop()):
                if found.is_dir:
                    folders.append(found.path)
                    continue
                local = client.download_artifacts(run, found.path, str(self.folder))
                key = found.path.removeprefix("figures/").rsplit("/", 1)[0]
                with open(local, "rb") as picture:
                    pictures.setdefault(key, []).append(picture.read())
        return client.get_run(run).data.metrics, pictures


BACK_ENDS = [TensorBoard, Csv, Wandb, Mlflow]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make a back end in a folder of its own."""
    return lambda kind: kind(tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_one_picture_an_epoch(kind, make, trainer):
    """O6: each back end has a PNG of the matrix, of the classes' and of the loss's history for each epoch."""
    back_end = make(kind)
    fit(trainer, back_end.logger, figures=("val/confusion", "val/each", "val/loss"))
    scalars, pictures = back_end.read()
    loss = "val/loss" + getattr(kind, "history", "")
    assert {key: len(found) for key, found in pictures.items()} == {"val/confusion": 2, "val/each": 2, loss: 2}
    assert all(found.startswith(PNG) for several in pictures.values() for found in several)
    assert scalars["val/loss"] > 0  # not replaced by the picture


def test_several_loggers_get_one_drawing(make, trainer):
    """Each in its own way, and the one that takes none as a file; the metric draws once an epoch."""
    drawn = []

    class Counting(MulticlassConfusionMatrix):
        def plot(self, *args, **kwargs):
            drawn.append(1)
            return super().plot(*args, **kwargs)

    class Several(Lit):
        figures = ("val/confusion",)

        def configure_metrics(self):
            return {"confusion": Counting(2)}

    back_ends = [make(kind) for kind in BACK_ENDS]
    fit(trainer, [back_end.logger for back_end in back_ends], module=Several())
    assert len(drawn) == 2
    for back_end in back_ends[:1] + back_ends[2:]:
        assert {key: len(found) for key, found in back_end.read()[1].items()} == {"val/confusion": 2}
    assert len(glob(f"{back_ends[0].logger.log_dir}/figures/val/confusion/*.png")) == 2  # the first folder there is


@pytest.mark.parametrize("kind", [TensorBoard, Csv, Wandb])
def test_odd_names_stay_distinct_and_as_they_are(kind, make, trainer):
    """O8: labels that are alike but for their signs or case each keep their own value, under their own key."""
    back_end = make(kind)
    expected = fit(trainer, back_end.logger, LABELS, figures=("val/confusion",), epochs=1)
    scalars, pictures = back_end.read()
    assert {key: value for key, value in scalars.items() if key.startswith("val/each/")} == pytest.approx(expected)
    assert list(pictures) == ["val/confusion"]


def test_names_that_mlflow_takes_stay_as_they_are(make, trainer):
    """On a database a key may also be the beginning of another."""
    labels = ["a", "a/b", "top 5", "top_5", "F1", "f1", "x.y", "x-y"]
    back_end = make(Mlflow)
    expected = fit(trainer, back_end.logger, labels, epochs=1)
    found = back_end.read()[0]
    assert {key: value for key, value in found.items() if key.startswith("val/each/")} == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:MLFlow only allows:RuntimeWarning")
def test_a_name_that_mlflow_shortens_but_does_not_mix_up_is_let_through(make, trainer):
    """Lightning removes what MLflow does not take and says so; alone that costs only the sign."""
    back_end = make(Mlflow)
    fit(trainer, back_end.logger, ["c++", "java"], epochs=1)
    assert {"val/each/c", "val/each/java"} <= back_end.read()[0].keys()


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        (["c++", "c#"], KeyCollisionError, r"'train/each/c\+\+' and 'train/each/c#' as 'train/each/c'"),
        (["c", "c#"], KeyCollisionError, "'train/each/c' and 'train/each/c#' as 'train/each/c'"),
        (["日本", "cat"], DeclarationError, "'train/each/日本' as 'train/each/', which MLflow refuses"),
        (["é/a", "cat"], DeclarationError, "'train/each/é/a' as 'train/each//a', which MLflow refuses"),
        (["x" * 250, "cat"], DeclarationError, "which MLflow refuses"),
    ],
    ids=["both-rewritten", "one-rewritten", "nothing-left", "empty-part", "too-long"],
)
def test_names_that_mlflow_would_mix_up_or_refuse_are_an_error_before_training(labels, error, said, make, trainer):
    """O8: the error names keys and logger and says what to do; no step was made and nothing is written."""
    back_end = make(Mlflow)
    module = type("Mine", (Lit,), {"labels": labels})()
    module.training_step = lambda *args: pytest.fail("training began")
    data, _ = batches(2)
    with pytest.raises(error, match=said) as caught:
        trainer(logger=back_end.logger).fit(module, data, data)
    assert "MLFlowLogger" in str(caught.value)
    assert "class_names" in str(caught.value)
    assert back_end.logger.experiment.get_run(back_end.logger.run_id).data.metrics == {}


@pytest.mark.filterwarnings("ignore:MLFlow only allows:RuntimeWarning")
@pytest.mark.parametrize("label", ["日本", "é/a", "x" * 250], ids=["nothing-left", "empty-part", "too-long"])
def test_without_the_check_mlflow_does_refuse(label, make):
    """Control: an exception from deep inside is what comes of these names."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException):
        make(Mlflow).logger.log_metrics({f"val/each/{label}": 1.0}, step=0)


@pytest.mark.parametrize("labels", [["c+", "c#"], ["top 5", "top_5"]], ids=str)
def test_names_that_tensorboardx_would_mix_up_are_an_error_before_training(labels, trainer, tmp_path, monkeypatch):
    """O8: Lightning takes it where tensorboard is absent; it writes all but letters, digits and ``-_./`` as ``_``."""
    monkeypatch.setattr("metric_mixin._log.find_spec", lambda name: None)
    module = type("Mine", (Lit,), {"labels": labels})()
    module.training_step = lambda *args: pytest.fail("training began")
    data, _ = batches(2)
    with pytest.raises(KeyCollisionError) as caught:
        trainer(logger=TensorBoardLogger(tmp_path, "tb")).fit(module, data, data)
    one, two = (f"'train/each/{label}'" for label in labels)
    for part in (f"TensorBoardLogger writes the keys {one} and {two} as 'train/each/", "tensorboardX", "class_names"):
        assert part in str(caught.value)


def test_names_that_tensorboardx_rewrites_and_keeps_apart_are_let_through(trainer, tmp_path, monkeypatch):
    """Of signs that become ``_`` another number, letters of any script, and parts."""
    monkeypatch.setattr("metric_mixin._log.find_spec", lambda name: None)
    fit(trainer, TensorBoardLogger(tmp_path, "tb"), ["c++", "c#", "été", "日本", "a/b", "a"], epochs=1)


@pytest.mark.filterwarnings("ignore:MLFlow only allows:RuntimeWarning")
def test_without_the_check_mlflow_does_mix_up(make):
    """Control: two classes become one metric, whose value is one of theirs."""
    logger = make(Mlflow).logger
    logger.log_metrics({"val/each/c++": 0.25, "val/each/c#": 0.75}, step=0)
    assert list(logger.experiment.get_run(logger.run_id).data.metrics) == ["val/each/c"]


def test_keys_one_below_the_other_are_an_error_in_mlflows_files(trainer, tmp_path, monkeypatch):
    """A file cannot be a folder too; the error says that a database takes both."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(save_dir=str(tmp_path / "mlruns"))
    module = type("Mine", (Lit,), {"labels": ["a", "a/b"]})()
    data, _ = batches(2)
    with pytest.raises(KeyCollisionError, match="'train/each/a' cannot be a file and the folder of 'train/each/a/b'"):
        trainer(logger=logger).fit(module, data, data)
    with pytest.raises(Exception, match=r"(?i)directory|already exists|ambiguous"):  # the control
        logger.log_metrics({"each/a": 0.0, "each/a/b": 1.0}, step=0)


def test_keys_found_in_an_epoch_are_checked_before_they_are_logged(make, trainer):
    """What a dict has is known once it is computed: in the sanity check, before training."""
    from torchmetrics import Metric

    class Dict(Metric):
        def update(self, preds, target):
            pass

        def compute(self):
            return {"c++": torch.tensor(1.0), "c#": torch.tensor(2.0)}

    module = Lit()
    module.configure_metrics = lambda: {"odd": Dict()}
    module.training_step = lambda *args: pytest.fail("training began")
    data, _ = batches(2)
    with pytest.raises(KeyCollisionError, match=r"'val/odd/c\+\+' and 'val/odd/c#' as 'val/odd/c'"):
        trainer(logger=make(Mlflow).logger).fit(module, data, data)


# The x axis, as the how-to page of that name has it


class ByEpoch(Lit):
    """Lightning takes what is logged as ``step`` for the step of its row."""

    def on_metrics_computed(self, stage, values):
        if self.trainer.state.fn == "fit":
            self.log("step", float(self.current_epoch))


def test_tensorboard_by_epoch(make, trainer):
    """U5: the values of an epoch stand over its number, those of a step over the step; a test is as before."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    back_end, module = make(TensorBoard), ByEpoch()
    fit(trainer, back_end.logger, module=module, epochs=3)
    data, _ = batches(2)
    assert "step" not in trainer(logger=back_end.logger).test(module, data, verbose=False)[0]
    back_end.read()
    events = EventAccumulator(back_end.logger.log_dir)
    events.Reload()
    steps = {key: [event.step for event in events.Scalars(key)] for key in events.Tags()["scalars"]}
    for key in ("val/loss", "val/each/cat", "train/loss", "train/each/dog"):
        assert steps[key] == [0, 1, 2]
    assert steps["train/loss_step"] == [0, 1, 2]  # one batch an epoch


def test_mlflow_by_epoch(make, trainer):
    """U5: likewise, read back from the database; with two batches an epoch, the steps are others."""
    back_end, module = make(Mlflow), ByEpoch()
    data = pairs(*[batches(2)[0].dataset[0]] * 2)
    run = trainer(max_epochs=3, logger=back_end.logger, log_every_n_steps=1)
    run.fit(module, data, data)

    def steps(key):
        history = back_end.logger.experiment.get_metric_history(back_end.logger.run_id, key)
        return [one.step for one in history]

    assert steps("val/each/cat") == steps("train/each/cat") == [0, 1, 2]
    assert steps("train/loss_step") == [0, 1, 2, 3, 4, 5]


def test_csv_by_epoch(make, trainer):
    """U5: nothing is to be done: each row has its epoch."""
    back_end = make(Csv)
    fit(trainer, back_end.logger, epochs=3)
    back_end.read()
    with (Path(back_end.logger.log_dir) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for key in ("val/each/cat", "train/each/cat", "val/loss"):
        assert [int(row["epoch"]) for row in rows if row[key]] == [0, 1, 2]


def test_wandb_by_epoch(make, trainer):
    """U5: the run says of each key of an epoch that its axis is ``epoch``, of no other, and each row has it."""

    class Drawn(Lit):
        def on_fit_start(self):
            for stage in ("train", "val"):
                for key in self.expected_metric_keys(stage):
                    self.logger.experiment.define_metric(key, step_metric="epoch")

    back_end = make(Wandb)
    fit(trainer, back_end.logger, module=Drawn(), epochs=2)
    back_end.read()
    (file,) = glob(f"{back_end.folder}/wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    axes = {one.metric.name: one.metric.step_metric for one in records if one.metric.step_metric == "epoch"}
    keys = {f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "each/cat", "each/dog")}
    assert set(axes) == keys
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
        for one in records
    ]
    for key in keys:
        assert [row["epoch"] for row in rows if key in row] == [0, 1]
