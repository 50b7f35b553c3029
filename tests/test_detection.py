"""Mean average precision as people use it, with pycocotools and torchvision: keys by class, whatever was seen."""

import os

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import tensor
from torchmetrics.detection.iou import IntersectionOverUnion
from torchmetrics.detection.mean_ap import MeanAveragePrecision

from metric_mixin import ClassNamesError, MetricLogging
from tests.support import Fed, fit_fed
from tests.zoo import absent

MISSING = absent(("torchvision", "pycocotools"))
pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("METRIC_MIXIN_ZOO") != "all", reason=f"{MISSING} cannot be imported here"
)

NAMES = ["ant", "bee", "cat", "dog"]
STATS = [f"map{s}" for s in ("", "_50", "_75", "_small", "_medium", "_large")]
STATS += [f"mar_{s}" for s in ("1", "10", "100", "small", "medium", "large")]
FOUND, MISSED = 1.0, 0.0


def image(classes):
    """Boxes of one image, from class to whether its box is found exactly or missed altogether."""
    boxes = torch.stack([tensor([0.0, 50.0 * i, 40.0, 50.0 * i + 40.0]) for i in range(len(classes))])
    labels = tensor(list(classes))
    away = tensor([[0.0 if found else 200.0, 0.0, 0.0 if found else 200.0, 0.0] for found in classes.values()])
    pred = {"boxes": boxes + away, "scores": torch.full((len(classes),), 0.9), "labels": labels}
    return [pred], [{"boxes": boxes, "labels": labels}]


class Detector(Fed):
    """Sees other classes in each epoch."""

    def __init__(self, metrics, *epochs):
        super().__init__(metrics)
        self.epochs = epochs

    def validation_step(self, batch, batch_idx):
        self.update_metrics(*image(self.epochs[self.current_epoch]))


def fit(module, folder, **options):
    return fit_fed(module, [0, 1, 2], folder, max_epochs=len(module.epochs), **options)


EPOCHS = (
    {0: FOUND},
    {0: FOUND, 2: MISSED, 3: FOUND},
    {3: FOUND, 2: FOUND},
)


@pytest.mark.parametrize(
    ("class_names", "labels"),
    [(None, ["0", "1", "2", "3"]), (NAMES, NAMES), ({"ap": NAMES}, NAMES), ({"val/ap": NAMES}, NAMES)],
    ids=["indices", "names", "names-by-metric", "names-by-stage"],
)
def test_each_class_that_was_seen_has_its_own_key_in_every_epoch(class_names, labels, tmp_path):
    """O3: one class, three, then two others: each value under its class, found boxes 1 and missed ones 0 by hand."""
    module = Detector({"ap": MeanAveragePrecision(class_metrics=True)}, *EPOCHS)
    module.metric_logging = MetricLogging(class_names=class_names)
    assert set(module.expected_metric_keys("val")) == {"val/loss", *(f"val/ap/{stat}" for stat in STATS)}

    trainer, said = fit(module, tmp_path)

    rows = [row for row in trainer.logger.metrics if "val/ap/map" in row]
    assert len(rows) == len(EPOCHS)
    for row, classes in zip(rows, EPOCHS, strict=True):
        per_class = {
            f"val/ap/{key}_per_class/{labels[index]}": found
            for key in ("map", "mar_100")
            for index, found in classes.items()
        }
        assert row.keys() == {"epoch", "step", *(f"val/ap/{stat}" for stat in STATS), *per_class}
        assert {key: row[key] for key in per_class} == pytest.approx(per_class)
        assert row["val/ap/map"] == pytest.approx(sum(classes.values()) / len(classes))
    results = module.metric_results["val"]
    torch.testing.assert_close(results["val/ap/classes"], tensor([2, 3], dtype=torch.int32))
    assert [message for message in said if "no scalar" in message] == said
    assert len(said) == 1
    assert "'val/ap/classes'" in said[0]


def test_without_class_metrics_everything_but_the_classes_is_a_number(tmp_path):
    """O3: torchmetrics' placeholders of -1 are logged as they are, and the vector ``classes`` crashes nothing."""
    module = Detector({"ap": MeanAveragePrecision()}, *EPOCHS)
    trainer, _ = fit(module, tmp_path)
    keys = {f"val/ap/{key}" for key in (*STATS, "map_per_class", "mar_100_per_class")}
    assert set(trainer.callback_metrics) == keys == set(module.expected_metric_keys("val"))
    assert trainer.callback_metrics["val/ap/map"].item() == pytest.approx(1.0)
    assert trainer.callback_metrics["val/ap/map_per_class"].item() == -1


def test_nothing_seen_is_no_error(tmp_path):
    """Images without a box: the numbers are torchmetrics' own -1, and no class has a key."""

    class Blank(Detector):
        def validation_step(self, batch, batch_idx):
            none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int)}
            self.update_metrics([none | {"scores": torch.zeros(0)}], [none])

    trainer, _ = fit(Blank({"ap": MeanAveragePrecision(class_metrics=True)}, {}), tmp_path)
    assert trainer.callback_metrics["val/ap/map"].item() == -1
    assert {key.split("/")[2] for key in trainer.callback_metrics} <= {*STATS, "map_per_class", "mar_100_per_class"}


def test_a_class_without_a_name_is_an_error_that_names_it(tmp_path):
    """A class beyond the names is no key of a wrong name, but an error at the sanity check."""
    module = Detector({"ap": MeanAveragePrecision(class_metrics=True)}, {0: FOUND, 3: FOUND})
    module.metric_logging = MetricLogging(class_names=["ant", "bee"])
    with pytest.raises(ClassNamesError, match=r"'ap' saw class 3, but `class_names` gives it 2"):
        fit(module, tmp_path)


def test_overlap_by_class_has_the_names_of_the_classes(tmp_path):
    """``IntersectionOverUnion``: the mean, and each class that was seen, by hand: found exactly, or missed."""
    module = Detector({"iou": IntersectionOverUnion(class_metrics=True)}, {0: FOUND, 3: FOUND})
    module.metric_logging = MetricLogging(class_names=NAMES)
    trainer, _ = fit(module, tmp_path)
    logged = {key: value.item() for key, value in trainer.callback_metrics.items()}
    assert logged == {"val/iou/iou": 1.0, "val/iou/iou/ant": 1.0, "val/iou/iou/dog": 1.0}


@pytest.mark.parametrize("logger", [CSVLogger, TensorBoardLogger])
@pytest.mark.parametrize("settings", [{}, {"class_metrics": True}, {"extended_summary": True}], ids=str)
def test_file_loggers_take_every_form(logger, settings, tmp_path):
    """O3: a table whose columns change by epoch, and a dict with keys that are tuples, break no logger."""
    module = Detector({"ap": MeanAveragePrecision(**settings)}, *EPOCHS)
    trainer, _ = fit(module, tmp_path, logger=logger(tmp_path))
    assert trainer.callback_metrics["val/ap/map"].item() == pytest.approx(1.0)
