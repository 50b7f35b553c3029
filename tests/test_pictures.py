"""An epoch's values become pictures, drawn once and given to each logger in its own way."""

import subprocess
import sys
import warnings
from pathlib import Path, PurePath, PurePosixPath
from types import SimpleNamespace

import fsspec
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.loggers import CSVLogger
from matplotlib import pyplot
from torch import tensor
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryConfusionMatrix,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassROC,
)
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, LambdaInputTransformer, MultitaskWrapper, Running

from metric_mixin import MetricLogging, MetricMixinWarning
from metric_mixin._pictures import hand_out, log_folder
from metric_mixin.testing import CapturingLogger
from tests.support import Replay, loader, pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")

FOLDER = PurePosixPath("figures/val/roc")
KEPT = ". It is kept whole in `metric_results['val']`."


class Folder:
    """A logger that takes no picture and has a folder."""

    experiment = None

    def __init__(self, log_dir=None, save_dir=None):
        self.log_dir, self.save_dir = log_dir, save_dir


class Picture:
    """A figure as ``hand_out`` sees it."""

    def savefig(self, file, **options):
        file.write(b"png")


def fake_trainer(root, *loggers, fast=False):
    return SimpleNamespace(fast_dev_run=fast, loggers=list(loggers), default_root_dir=str(root))


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


# To loggers and files


@pytest.mark.parametrize("takers", [1, 2])
def test_loggers_that_take_a_picture_get_it_and_no_file_is_written(takers, tmp_path):
    """Each logger with ``add_figure`` gets the picture under its key and step; then there is no file."""
    loggers = [CapturingLogger() for _ in range(takers)]
    picture = Picture()
    assert list(hand_out(fake_trainer(tmp_path, *loggers), "val/roc", picture, 7, FOLDER)) == []
    assert [logger.figures for logger in loggers] == [[{"key": "val/roc", "figure": picture, "step": 7}]] * takers
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda root: [], "figures/val/roc/7.png"),
        (lambda root: [Folder(log_dir=str(root / "v0"))], "v0/figures/val/roc/7.png"),
        (lambda root: [Folder(save_dir=str(root / "s"))], "s/figures/val/roc/7.png"),
        (lambda root: [Folder(log_dir=str(root / "v0"), save_dir=str(root / "s"))], "v0/figures/val/roc/7.png"),
        (lambda root: [Folder(), Folder(log_dir=str(root / "v1"))], "v1/figures/val/roc/7.png"),
        (lambda root: [Folder()], "figures/val/roc/7.png"),
        (lambda root: [CapturingLogger(), Folder(log_dir=str(root / "v0"))], "v0/figures/val/roc/7.png"),
    ],
    ids=["no-logger", "log-dir", "save-dir", "both", "second", "none-has-one", "beside-a-taker"],
)
def test_a_logger_that_takes_no_picture_gets_a_file(make, where, tmp_path):
    """Where a logger takes no picture, or there is none, one PNG is written below the log folder, by key and step."""
    trainer = fake_trainer(tmp_path, *make(tmp_path))
    assert list(hand_out(trainer, "val/roc", Picture(), 7, FOLDER)) == []
    assert files(tmp_path) == [where]
    assert PurePath(log_folder(trainer)) / "figures" / "val" / "roc" / "7.png" == tmp_path / where
    assert all(len(logger.figures) == 1 for logger in trainer.loggers if isinstance(logger, CapturingLogger))


def test_a_dry_run_writes_nothing(tmp_path):
    """``fast_dev_run`` leaves neither a file nor a logged picture."""
    logger = CapturingLogger()
    assert list(hand_out(fake_trainer(tmp_path, logger, Folder(), fast=True), "val/roc", Picture(), 7, FOLDER)) == []
    assert files(tmp_path) == []
    assert logger.figures == []


def test_a_logger_that_fails_costs_the_others_nothing(tmp_path):
    """The failure is handed back with the logger's class; the next logger and the file get the picture."""

    class Failing(CapturingLogger):
        def add_figure(self, *args, **kwargs):
            raise ConnectionError("no server")

    last = CapturingLogger()
    trainer = fake_trainer(tmp_path, Failing(), Folder(), last)
    ((who, error),) = hand_out(trainer, "val/roc", Picture(), 7, FOLDER)
    assert (who, str(error)) == ("Failing", "no server")
    assert len(last.figures) == 1
    assert files(tmp_path) == ["figures/val/roc/7.png"]


def test_a_file_that_cannot_be_written_is_handed_back(tmp_path):
    """A full or closed disk ends no training run."""
    (tmp_path / "figures").write_text("in the way")
    ((where, error),) = hand_out(fake_trainer(tmp_path), "val/roc", Picture(), 7, FOLDER)
    assert "figures" in where
    assert isinstance(error, OSError)


def test_a_picture_that_cannot_be_rendered_is_handed_back(tmp_path):
    """Whatever a ``plot`` left in the figure ends no training run either."""

    class Broken:
        def savefig(self, file, **options):
            file.write(b"half of")
            raise ValueError("no glyphs")

    ((_, error),) = hand_out(fake_trainer(tmp_path), "val/roc", Broken(), 7, FOLDER)
    assert str(error) == "no glyphs"
    assert files(tmp_path) == []  # nor half a file


@pytest.mark.parametrize("logged", [False, True], ids=["root", "log-dir"])
def test_a_folder_on_another_file_system_is_that_one(logged, tmp_path, monkeypatch):
    """A folder such as ``s3://bucket`` is no folder of that name on this machine."""
    monkeypatch.chdir(tmp_path)
    memory = fsspec.filesystem("memory")
    trainer = fake_trainer("memory://here", *[Folder(log_dir="memory://here/v0")] * logged)
    try:
        assert list(hand_out(trainer, "val/roc", Picture(), 7, FOLDER)) == []
        assert memory.find("/here") == [f"/here{'/v0' * logged}/figures/val/roc/7.png"]
    finally:
        memory.rm("/here", recursive=True)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["a::b", "file::c", "a#b%20c", "[a]*", "~a"])
def test_a_folder_on_this_machine_may_have_any_name(tmp_path, monkeypatch, name):
    """What fsspec takes for one file system in another is a part of a name where no ``://`` is."""
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / name, Path("logs") / name):
        assert list(hand_out(fake_trainer(str(root)), "val/roc", Picture(), 7, FOLDER)) == []
    assert files(tmp_path) == [f"{root}/figures/val/roc/7.png" for root in sorted((name, f"logs/{name}"))]


# From an epoch


class Drawn(Replay):
    """Its metrics see what a test gives them; every drawing and computing is counted."""

    calls: list

    def __init__(self, **options):
        super().__init__()
        self.calls = []
        self.metric_logging = MetricLogging(**options)

    def configure_metrics(self):
        calls = self.calls

        class Confusion(MulticlassConfusionMatrix):
            def compute(self):
                calls.append("compute")
                return super().compute()

            def plot(self, val=None, ax=None, add_text=True, labels=None):
                calls.append("plot")
                return super().plot(val, ax, add_text, labels)

        return {
            "confusion": Confusion(4),
            "acc": MulticlassAccuracy(4, average="micro"),
            "each": MulticlassAccuracy(4, average=None),
        }


def only_right(rows=4):
    """A batch of which every row is predicted right, and one of which none is."""
    target = torch.arange(rows) % 4
    return (torch.nn.functional.one_hot(target, 4).float(), target)


def only_wrong(rows=4):
    inputs, target = only_right(rows)
    return inputs, (target + 1) % 4


def shown(logger, key):
    """Lines of the last picture of a key: name to epochs and values."""
    figure = [f["figure"] for f in logger.figures if f["key"] == key][-1]
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()] or [None]
    return {n: dict(line.get_xydata().tolist()) for n, line in zip(names, figure.axes[0].lines, strict=True)}


def test_a_picture_an_epoch_and_nothing_is_computed_for_it(trainer):
    """O6: the value already computed is drawn, once for two loggers; no figure stays open."""
    module, loggers = Drawn(figures=("val/confusion",)), [CapturingLogger(), CapturingLogger()]
    trainer(max_epochs=3, logger=loggers, num_sanity_val_steps=0).fit(module, loader(), loader())
    assert module.calls == ["compute", "plot", "compute"] * 3  # of validation, and, without a picture, of training
    for logger in loggers:
        steps = [row["step"] for row in logger.metrics if "val/acc" in row]
        assert [(f["key"], f["step"]) for f in logger.figures] == [("val/confusion", step) for step in steps]
        assert len(steps) == 3
    assert loggers[0].figures[0]["figure"] is loggers[1].figures[0]["figure"]
    assert pyplot.get_fignums() == []


def test_a_scalar_is_drawn_over_the_epochs_of_the_run(trainer):
    """W5, O6: a point for each epoch, none for the sanity check, which saw only right rows; the loss likewise."""
    module, run = Drawn(figures=("val/acc", "*/loss")), trainer(max_epochs=3, num_sanity_val_steps=1)
    module.on_metrics_computed = lambda stage, values: seen[stage].append(values[f"{stage}/loss"].item())
    seen = {"train": [], "val": []}
    run.fit(module, pairs(only_right()), pairs(only_right(), only_wrong(), only_wrong(8)))
    assert shown(run.logger, "val/acc") == {None: {0: 0.25, 1: 0.25, 2: 0.25}}
    for stage, losses in seen.items():
        assert shown(run.logger, f"{stage}/loss") == {None: dict(enumerate(losses))}
    assert [f["key"] for f in run.logger.figures].count("val/acc") == 3


def test_a_sanity_check_draws_nothing(trainer):
    """W5: no picture comes from it."""

    class Stopped(Drawn):
        def on_train_start(self):
            raise InterruptedError

    module, run = Stopped(figures=("*",)), trainer(num_sanity_val_steps=2)
    with pytest.raises(InterruptedError):
        run.fit(module, loader(), loader())
    assert module.calls == ["compute"]
    assert run.logger.figures == []


@pytest.mark.parametrize("wrapped", [False, True], ids=["average-none", "classwise-wrapper"])
def test_values_a_class_are_one_picture(trainer, wrapped):
    """A line for each class under its name; the picture has the metric's key."""

    class Named(Drawn):
        def configure_metrics(self):
            each = MulticlassAccuracy(4, average=None)
            return {"each": ClasswiseWrapper(each, labels=list("abcd")) if wrapped else each}

    module = Named(figures=("val/each",), class_names=None if wrapped else list("abcd"))
    run = trainer(max_epochs=2)
    run.fit(module, loader(), pairs(only_right(2), (only_wrong(4)[0][2:], only_wrong(4)[1][2:])))
    expected = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}  # right: 0 -> a, 1 -> b; wrong: 2 -> d, 3 -> a (half of a's)
    expected["a"] = 0.5
    assert shown(run.logger, "val/each") == {name: {0: v, 1: v} for name, v in expected.items()}
    assert {f["key"] for f in run.logger.figures} == {"val/each"}


def test_every_nth_epoch_is_drawn_and_every_epoch_is_in_the_history(trainer):
    """Of six epochs with 3 the third and sixth; the history has all six; an evaluation is always drawn."""
    module, run = Drawn(figures=("val/acc",), figures_every_n_epochs=3), trainer(max_epochs=6)
    run.fit(module, loader(4), pairs(only_right()))
    steps = [row["step"] for row in run.logger.metrics if "val/acc" in row]
    assert [f["step"] for f in run.logger.figures] == [steps[2], steps[5]]
    assert shown(run.logger, "val/acc") == {None: dict.fromkeys(range(6), 1.0)}
    run.validate(module, pairs(only_wrong()), verbose=False)
    assert shown(run.logger, "val/acc") == {None: {6: 0.0}}


def test_drawing_every_second_epoch_meets_validating_every_second_epoch(trainer):
    """Both count to the second epoch, so that pictures do come."""
    module = Drawn(figures=("val/acc",), figures_every_n_epochs=2)
    run = trainer(max_epochs=4, check_val_every_n_epoch=2)
    run.fit(module, loader(4), loader(4))
    assert len(run.logger.figures) == 2


def test_each_dataloader_has_pictures_of_its_own(trainer):
    """Keys of pictures are made by ``metric_key`` as all keys are; classes share one, loaders do not."""
    module = Drawn(figures=("each", "confusion"), val_loaders=("day", "night"))
    run = trainer(max_epochs=1, num_sanity_val_steps=0)
    run.validate(module, [pairs(only_right()), pairs(only_wrong())], verbose=False)
    keys = ["val/day/confusion", "val/day/each", "val/night/confusion", "val/night/each"]
    assert sorted(f["key"] for f in run.logger.figures) == keys
    bars = [f["figure"].axes[0].patches for f in run.logger.figures if f["key"].endswith("each")]
    assert [[bar.get_width() for bar in each] for each in bars] == [[1.0] * 4, [0.0] * 4]


def test_class_names_are_on_the_axes(trainer):
    """Names from the options stand on both axes of a confusion matrix."""
    module, run = Drawn(figures=("confusion",), class_names=list("abcd")), trainer()
    run.validate(module, loader(), verbose=False)
    (axes,) = run.logger.figures[0]["figure"].axes
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == list("abcd")


def ticks(run, key):
    """Names on the axes of the last picture of a key."""
    figure = [f["figure"] for f in run.logger.figures if f["key"] == key][-1]
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_names_of_another_number_are_on_no_axes_and_that_is_said(trainer):
    """Once for each metric, with both numbers; a binary matrix has two names, and of another number none, by itself."""

    class Several(Drawn):
        def configure_metrics(self):
            return {"four": MulticlassConfusionMatrix(4), "two": BinaryConfusionMatrix()}

        def configure_stage_metrics(self, stage):
            return self.configure_metrics() if stage == "val" else {}

        def validation_step(self, batch, batch_idx):
            self.update_metrics(*batch, metrics="four")
            self.update_metrics(batch[1] % 2, batch[1] % 2, metrics="two")

    for names, four, two, count in (
        (list("abcd"), list("abcd"), ["0", "1"], 0),
        (list("ab"), list("0123"), ["a", "b"], 1),
        ({"four": list("abcd"), "two": list("ny")}, list("abcd"), ["n", "y"], 0),
    ):
        run = trainer(max_epochs=2)
        said = warned(run, Several(figures=("val/four", "val/two"), class_names=names), loader(), loader())
        assert (ticks(run, "val/four"), ticks(run, "val/two")) == (four, two)
        messages = [m for m in said if "class_names" in m]
        assert len(messages) == count
        assert all("'four' has 4 classes, but `class_names` gives it 2: 'a', 'b'" in m for m in messages)


def test_other_ranks_do_not_even_draw(trainer, monkeypatch):
    """Only the first process draws; others keep no history either."""
    module, run = Drawn(figures=("*",)), trainer()
    monkeypatch.setattr(type(run), "is_global_zero", property(lambda self: False))
    run.validate(module, loader(), verbose=False)
    assert "plot" not in module.calls
    assert run.logger.figures == []


def warned(run, module, *loaders):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(module, *loaders)
    return [str(w.message) for w in caught if isinstance(w.message, MetricMixinWarning)]


def test_a_failing_plot_is_said_once_and_training_goes_on(trainer):
    """The other pictures come, all epochs run, and the message names key and error."""

    class Odd(MulticlassConfusionMatrix):
        def plot(self, *args, **kwargs):
            raise ValueError("no paint")

    class Failing(Drawn):
        def configure_metrics(self):
            return {"odd": Odd(4)} | super().configure_metrics()

    run = trainer(max_epochs=2)
    said = warned(run, Failing(figures=("val/odd", "val/confusion")), loader(), loader())
    assert [m for m in said if "fail" in m] == [f"Drawing 'val/odd' failed: ValueError: no paint{KEPT}"]
    assert run.current_epoch == 2
    assert [f["key"] for f in run.logger.figures] == ["val/confusion"] * 2
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("names", [{0: "ant"}, [0, 1, 2, 3], "abcd"], ids=["dict", "numbers", "string"])
def test_class_names_that_are_none_cost_the_picture_and_not_the_run(trainer, names):
    """Of a datamodule whose attribute no other metric asks for: all epochs run, and other pictures come."""

    class Named(LightningDataModule):
        class_names = names

        def train_dataloader(self):
            return loader()

        val_dataloader = train_dataloader

    class NoClasses(Drawn):
        def configure_metrics(self):
            return {"confusion": MulticlassConfusionMatrix(4), "acc": MulticlassAccuracy(4)}

    run = trainer(max_epochs=2)
    (message,) = [m for m in warned(run, NoClasses(figures=("val/*",)), Named()) if "Drawing" in m]
    assert message.startswith(
        "Drawing 'val/confusion' failed: ClassNamesError: The datamodule's attribute `class_names`"
    )
    assert message.endswith(f"`MetricLogging(class_names=...)`{KEPT}")
    assert run.current_epoch == 2
    assert {f["key"] for f in run.logger.figures} == {"val/acc", "val/loss"}


def test_a_failing_logger_is_said_once_and_training_goes_on(trainer):
    """An upload that fails names logger, picture and error."""

    class Offline(CapturingLogger):
        def add_figure(self, *args, **kwargs):
            raise ConnectionError("no server")

    run = trainer(max_epochs=2, logger=[Offline(), CapturingLogger()])
    said = warned(run, Drawn(figures=("val/*",)), loader(), loader())
    assert [m for m in said if "server" in m] == [
        "The picture of 'val/confusion' could not be given to Offline: ConnectionError: no server"
    ]
    assert len(run.loggers[1].figures) == 2 * 4  # with the loss


def test_a_folder_that_cannot_be_written_is_said_once(trainer, tmp_path):
    """However many pictures should go there."""
    (tmp_path / "figures").write_text("in the way")
    said = warned(trainer(logger=False), Drawn(figures=("val/*", "*/loss")), loader(), loader())
    (message,) = [m for m in said if "could not be given" in m]
    assert f"could not be given to {tmp_path / 'figures'}" in message


def test_signs_that_the_font_lacks_are_said_once(trainer, tmp_path):
    """By us, with a label and the font, over two epochs, four pictures and two loggers; by matplotlib never."""
    names = ["ant", "日本", "中国", "owl"]
    run = trainer(logger=[CapturingLogger(), CSVLogger(tmp_path)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(Drawn(figures=("val/*",), class_names=names), loader(), loader())
    (message,) = [str(w.message) for w in caught if "lyph" in str(w.message) or "font" in str(w.message)]
    for part in ("'日本'", "DejaVu Sans", "rcParams['font.family']"):
        assert part in message


class Images(CapturingLogger):
    """A logger that takes images the way W&B does."""

    def __init__(self):
        super().__init__()
        self.images = []

    def log_image(self, key, images, step):
        self.images.append(key)


@pytest.mark.parametrize(
    ("figures", "images"),
    [
        (("each",), ["val/acc_history_history"]),
        (("acc",), ["val/acc_history_history"]),
        (("acc", "acc_history"), ["val/acc_history_history", "val/acc_history_history_history"]),
        (("each", "confusion"), ["val/acc_history_history", "val/confusion"]),
    ],
    ids=["unmatched-scalar", "history-is-a-scalar", "both", "array"],
)
def test_no_image_takes_the_place_of_a_scalar(trainer, figures, images):
    """Where an image's key, or that with ``_history``, is any scalar's, a free one is found, the same in each epoch."""

    class Keyed(Drawn):
        def configure_metrics(self):
            return super().configure_metrics() | {"acc_history": MulticlassAccuracy(4)}

        def metric_key(self, stage, name, loader=None):
            return f"{stage}/{name.replace('each', 'acc')}"

    run = trainer(max_epochs=2, logger=Images())
    run.fit(Keyed(figures=[f"val/{name}" for name in figures]), loader(), loader())
    assert sorted(run.logger.images) == sorted(images * 2)
    assert not {key for row in run.logger.metrics for key in row} & set(run.logger.images)


TASKS = {"roc": MulticlassROC, "confusion": MulticlassConfusionMatrix}


class Wrapped(Drawn):
    """One metric, whose inputs are given to each of its tasks."""

    def __init__(self, make, **options):
        super().__init__(**options)
        self.make = make

    def configure_metrics(self):
        return {"own": self.make()}

    def metric_inputs(self, outputs, target, batch):
        return tuple(dict.fromkeys(TASKS, part) for part in (outputs, target)) if self.tasks() else (outputs, target)

    def tasks(self):
        return isinstance(self.make(), MultitaskWrapper)


@pytest.mark.parametrize(
    ("make", "figures", "keys"),
    [
        (lambda: MultitaskWrapper({k: t(4, thresholds=3) if k == "roc" else t(4) for k, t in TASKS.items()}),
         "own*", {"val/own/roc", "val/own/confusion"}),
        (lambda: MultitaskWrapper({k: MetricCollection({"m": MulticlassROC(4, 3)}) for k in TASKS}, prefix="a/"),
         "own*", {"val/own/a/roc/m", "val/own/a/confusion/m"}),
        (lambda: Running(MulticlassConfusionMatrix(4), window=2), "own", {"val/own"}),
        (lambda: LambdaInputTransformer(MulticlassROC(4, 3), lambda preds: preds.softmax(1)), "own", {"val/own"}),
    ],
    ids=["tasks", "collections", "running", "transformer"],
)  # fmt: skip
def test_what_a_wrapper_returns_is_drawn_by_the_metric_that_computed_it(trainer, make, figures, keys):
    """With the names of the classes, on the axes of a matrix or in the legend of curves."""
    run = trainer(max_epochs=1)
    said = warned(run, Wrapped(make, figures=(f"val/{figures}",), class_names={"*": list("abcd")}), loader(), loader())
    assert [m for m in said if "Drawing" in m] == []
    assert {f["key"] for f in run.logger.figures} == keys
    for figure in (f["figure"] for f in run.logger.figures):
        axes = figure.axes[0]
        legend = [text.get_text() for found in figure.legends for text in found.get_texts()]
        assert (legend or [text.get_text() for text in axes.get_xticklabels()]) == list("abcd")
        assert legend or len(axes.texts) == 16  # the numbers of the cells


def test_a_plain_list_of_names_is_for_no_task(trainer):
    """Which of several tasks it names nobody can tell; the keys have no names of it either."""

    def make():
        return MultitaskWrapper({name: MulticlassConfusionMatrix(4) for name in TASKS})

    run = trainer(max_epochs=1)
    run.fit(Wrapped(make, figures=("val/own*",), class_names=list("abcd")), loader(), loader())
    for figure in (f["figure"] for f in run.logger.figures):
        assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == list("0123")


def test_a_vector_that_a_wrapper_returned_is_bars(trainer):
    """A bar for each of the values that are kept whole."""
    module, run = Wrapped(lambda: BootStrapper(MulticlassAccuracy(4), 5, raw=True), figures=("own/raw",)), trainer()
    run.validate(module, loader(), verbose=False)
    (picture,) = run.logger.figures
    values = module.metric_results["val"]["val/own/raw"].tolist()
    assert picture["key"] == "val/own/raw"
    assert [bar.get_width() for bar in picture["figure"].axes[0].patches] == values
    assert len(values) == 5


def test_a_part_that_cannot_be_drawn_is_said_once(trainer):
    """With its key, and where it is kept."""

    class Own(Drawn):
        def configure_metrics(self):
            metric = Bare()
            metric.value = {"cube": torch.zeros(2, 2, 2), "row": torch.ones(2, dtype=torch.int64)}
            return {"own": metric}

    run = trainer(max_epochs=2)
    said = [m for m in warned(run, Own(figures=("val/own",)), loader(), loader()) if "Drawing" in m]
    assert len(said) == 1
    assert said[0].startswith("Drawing 'val/own/cube' failed: NotImplementedError: ")
    assert said[0].endswith(KEPT)
    assert {f["key"] for f in run.logger.figures} == {"val/own/row"}


def test_without_matplotlib_one_message_says_what_to_install(trainer, monkeypatch):
    """Training goes on, whatever number of pictures was asked for."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = trainer(max_epochs=2)
    said = warned(run, Drawn(figures=("*",)), loader(), loader())
    assert len([m for m in said if "matplotlib" in m]) == 1
    assert "metric-mixin[plot]" in next(m for m in said if "matplotlib" in m)
    assert run.current_epoch == 2
    assert run.logger.figures == []


class Bare(Metric):
    """A metric without ``plot``, whose value a test sets."""

    value = None

    def update(self, preds, target):
        pass

    def compute(self):
        return self.value


@pytest.mark.parametrize(
    ("value", "drawn"),
    [(tensor(0.5), True), (torch.eye(3), True), ({"a": tensor(1.0), "m": torch.eye(2)}, True), (("x", "y"), False)],
    ids=["scalar", "matrix", "dict", "strings"],
)
def test_a_metric_without_a_plot(trainer, value, drawn):
    """A scalar has its history, a matrix its image, alone or in a dict; anything else is said once."""

    class Own(Drawn):
        def configure_metrics(self):
            metric = Bare()
            metric.value = value
            return {"own": metric}

    run = trainer(max_epochs=2)
    said = warned(run, Own(figures=("val/own", "val/own/*")), loader(), loader())
    keys = {"val/own/a", "val/own/m"} if isinstance(value, dict) else {"val/own"}
    assert {f["key"] for f in run.logger.figures} == (keys if drawn else set())
    failed = [f"Drawing 'val/own' failed: NotImplementedError: Bare has no `plot` of its own{KEPT}"]
    assert [m for m in said if "Drawing" in m] == ([] if drawn else failed)


def test_a_regression_has_its_history_as_well(trainer):
    """Nothing about a history is for classes alone."""

    class Regression(Drawn):
        def configure_metrics(self):
            return {"mse": MeanSquaredError()}

        def metric_inputs(self, outputs, target, batch):
            return outputs[:, 0], target.float()

    run = trainer(max_epochs=2)
    run.fit(Regression(figures=("mse",)), pairs((torch.zeros(2, 4), tensor([1, 2]))), pairs(only_right()))
    assert shown(run.logger, "train/mse") == {None: {0: 2.5, 1: 2.5}}


@pytest.mark.parametrize("logger", [False, "csv"])
def test_pictures_are_files_where_no_logger_takes_them(trainer, tmp_path, logger):
    """O6: with a CSV logger, or none, one PNG a picture and epoch at ``figures/KEY/STEP.png``."""
    run = trainer(max_epochs=2, logger=CSVLogger(tmp_path, "logs") if logger else False)
    run.fit(Drawn(figures=("val/confusion", "val/acc")), loader(), loader())
    root = tmp_path / "logs" / "version_0" if logger else tmp_path
    pngs = [name for name in files(root) if name.endswith(".png")]
    assert pngs == [f"figures/val/{key}/{step}.png" for key in ("acc", "confusion") for step in (11, 5)]
    assert all((root / name).read_bytes().startswith(b"\x89PNG") for name in pngs)


def test_keys_that_differ_only_in_case_have_files_of_their_own(trainer, tmp_path):
    """On a disk that tells no cases apart they would overwrite each other."""

    class Cases(Drawn):
        def configure_metrics(self):
            return {name: MulticlassConfusionMatrix(4) for name in ("F1", "f1")}

    trainer(logger=False).validate(Cases(figures=("*1",)), loader(), verbose=False)
    pngs = [name.lower() for name in files(tmp_path) if name.endswith(".png")]
    assert len(set(pngs)) == 2
    assert "figures/val/f1/0.png" in pngs


def test_barebones_draws_nothing(trainer, tmp_path):
    """A Trainer that does nothing but train writes no picture."""
    module = Drawn(figures=("*",))
    run = trainer(barebones=True, logger=None, **dict.fromkeys(["enable_checkpointing", "log_every_n_steps"]))
    run.validate(module, loader(), verbose=False)
    assert "plot" not in module.calls
    assert files(tmp_path) == []


@pytest.mark.parametrize("first", ["torchmetrics, lightning.pytorch", "torchmetrics, pytorch_lightning"])
def test_no_logger_and_no_matplotlib_is_imported_by_us(first):
    """``import metric_mixin`` adds none of them to what torchmetrics and Lightning import themselves."""
    code = (
        f"import sys, {first}, lightning.pytorch.loggers\n"
        "before = set(sys.modules)\n"
        "import metric_mixin\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names & {'matplotlib', 'tensorboard', 'wandb', 'mlflow', 'PIL'}), 'metric_mixin' in names)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "[] True"
