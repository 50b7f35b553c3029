"""Values become pictures, by the metric's own ``plot``."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import tensor
from torchmetrics import MinMaxMetric
from torchmetrics.classification import (
    BinaryROC,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassROC,
    MultilabelConfusionMatrix,
)

from metric_mixin._errors import MissingDependencyError
from metric_mixin._figures import _as_path, draw, log_folder, write
from metric_mixin.testing import CapturingLogger

# matplotlib asks a tensor for an array in a way that torch does not know yet; it is about neither ours nor a test's
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LABELS = ["ant", "bee", "cat"]
SCORES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
CLASSES = tensor([0, 1, 2, 1])
BITS = tensor([[1, 0, 0], [0, 1, 1], [1, 0, 1], [0, 1, 0]])


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def drawn(metric, *inputs, labels=None):
    metric.update(*inputs)
    return draw(metric, metric.compute(), "val/x", labels)


def test_a_confusion_matrix_is_drawn_with_its_counts_and_class_names():
    """The picture shows the given counts and names the classes on both axes; its title is the key."""
    value = tensor([[7, 1, 0], [2, 8, 3], [0, 4, 9]])
    figure = draw(MulticlassConfusionMatrix(3), value, "val/confusion", LABELS)
    (axes,) = figure.axes
    assert texts(figure) == ["7", "1", "0", "2", "8", "3", "0", "4", "9"]
    assert [label.get_text() for label in axes.get_xticklabels()] == LABELS
    assert [label.get_text() for label in axes.get_yticklabels()] == LABELS
    assert figure.get_suptitle() == "val/confusion"


def test_without_labels_classes_have_their_index():
    """A metric without class names is drawn with the indices that torchmetrics gives."""
    figure = draw(MulticlassConfusionMatrix(2), tensor([[1, 0], [0, 1]]), "t")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1"]


@pytest.mark.parametrize(
    ("metric", "inputs"),
    [
        (MulticlassROC(3), (SCORES, CLASSES)),
        (MulticlassROC(3, thresholds=4), (SCORES, CLASSES)),
        (BinaryROC(), (SCORES[:, 0], CLASSES > 0)),
        (MultilabelConfusionMatrix(3), (SCORES, BITS)),
        (MulticlassAccuracy(3, average=None), (SCORES, CLASSES)),
        (MinMaxMetric(MulticlassAccuracy(3)), (SCORES, CLASSES)),
    ],
    ids=["roc", "roc-binned", "roc-binary", "confusion-per-label", "vector", "min-max"],
)
@pytest.mark.parametrize("labels", [None, LABELS], ids=["plain", "named"])
def test_every_metric_with_a_plot_can_be_drawn(metric, inputs, labels, tmp_path):
    """Curves, matrices a label, vectors and dicts are drawn, with names also where ``plot`` takes none."""
    figure = drawn(metric.clone(), *inputs, labels=labels)
    figure.savefig(tmp_path / "x.png")
    assert figure.get_suptitle() == "val/x"
    assert figure.axes


def test_drawing_computes_nothing():
    """The given value is drawn; ``compute``, which might sync, is not called."""

    class Refusing(MulticlassConfusionMatrix):
        def compute(self):
            raise AssertionError("computed again")

    assert texts(draw(Refusing(2), tensor([[3, 0], [0, 4]]), "t")) == ["3", "0", "0", "4"]


def test_drawing_opens_no_window_and_leaves_no_figure():
    """A picture is made without pyplot: no figure stays open there, and the back end is not touched."""
    import matplotlib
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    figure = draw(MulticlassConfusionMatrix(2), tensor([[1, 0], [0, 1]]), "t")
    assert pyplot.get_fignums() == []
    assert matplotlib.get_backend() == before
    assert type(figure.canvas).__name__ == "FigureCanvasAgg"


@pytest.mark.parametrize(("classes", "side"), [(2, 6.0), (20, 10.0), (500, 40.0)], ids=["few", "many", "very-many"])
def test_a_picture_grows_with_its_classes_within_limits(classes, side):
    """Width is 2 inches and 0.4 a class, at least 6 and at most 40."""
    metric = SimpleNamespace(plot=lambda value, ax: ax.imshow(value.numpy()))
    figure = draw(metric, torch.zeros(classes, classes), "t")
    assert figure.get_size_inches()[0] == pytest.approx(side)


def test_a_missing_matplotlib_is_an_error_that_says_what_to_install(monkeypatch):
    """Where matplotlib is absent the error names it and the extra that brings it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="matplotlib") as caught:
        draw(MulticlassConfusionMatrix(2), torch.eye(2), "t")
    assert "metric-mixin[plot]" in str(caught.value)
    assert isinstance(caught.value, ModuleNotFoundError)


class Folder:
    """A logger that takes no picture and has a folder."""

    experiment = None

    def __init__(self, log_dir=None, save_dir=None):
        self.log_dir, self.save_dir = log_dir, save_dir


class Picture:
    """A figure as ``write`` sees it."""

    def savefig(self, path):
        path.write_bytes(b"png")


def fake_trainer(root, *loggers, zero=True, fast=False):
    return SimpleNamespace(is_global_zero=zero, fast_dev_run=fast, loggers=list(loggers), default_root_dir=str(root))


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("takers", [1, 2])
def test_loggers_that_take_a_picture_get_it_and_no_file_is_written(takers, tmp_path):
    """Each logger with ``add_figure`` gets the picture under its key and step; then there is no file."""
    loggers = [CapturingLogger() for _ in range(takers)]
    picture = Picture()
    assert write(fake_trainer(tmp_path, *loggers), "val/roc", picture, 7) is None
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
    path = write(trainer, "val/roc", Picture(), 7)
    assert files(tmp_path) == [where]
    assert path == tmp_path / where
    assert path == log_folder(trainer) / "figures" / "val" / "roc" / "7.png"
    assert all(len(logger.figures) == 1 for logger in trainer.loggers if isinstance(logger, CapturingLogger))


@pytest.mark.parametrize("options", [{"zero": False}, {"fast": True}], ids=["other-rank", "fast-dev-run"])
def test_only_rank_zero_writes_and_a_dry_run_writes_nothing(options, tmp_path):
    """Other ranks and ``fast_dev_run`` leave neither a file nor a logged picture."""
    logger = CapturingLogger()
    assert write(fake_trainer(tmp_path, logger, Folder(), **options), "val/roc", Picture(), 7) is None
    assert files(tmp_path) == []
    assert logger.figures == []


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("val/roc", "val/roc"),
        ("val/iou@0.5", "val/iou@0.5"),
        ("val/c++ a=b_c-d", "val/c++ a=b_c-d"),
        ("val/Bär", "val/Bär"),
        ("../../etc/x", "%2E%2E/%2E%2E/etc/x"),
        ("/abs/./x", "abs/%2E/x"),
    ],
    ids=["plain", "dots", "punctuation", "letters", "outside", "absolute"],
)
def test_a_key_is_a_path_below_its_folder(key, path):
    """Harmless names stay as they are; no key leads out of the folder."""
    assert _as_path(key).as_posix() == path


@pytest.mark.parametrize("key", ['val/a:b*c?d"e<f>g|h', "val/a\\b", "val/c#"], ids=["windows", "backslash", "hash"])
def test_no_character_is_left_that_a_file_system_refuses(key):
    """Characters that some system refuses in a file name are not in the path."""
    assert not set(_as_path(key).as_posix()) & set(':*?"<>|\\#')


@pytest.mark.parametrize(
    ("one", "other"), [("val/c#", "val/c?"), ("val/c#", "val/c_"), ("val/a:b", "val/a_b")], ids=["both", "one", "colon"]
)
def test_two_keys_never_share_a_file(one, other):
    """Names that differ only in characters that are replaced stay apart, so that no picture overwrites another."""
    assert _as_path(one) != _as_path(other)
