"""Values of every kind that a metric may return, with real loggers: logged, kept whole, or refused."""

import warnings
from collections import namedtuple
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import tensor
from torchmetrics import Metric
from torchmetrics.regression import MeanSquaredError
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import DeclarationError, KeyCollisionError, MetricLogging
from metric_mixin.testing import CapturingLogger
from tests.support import Fed, fit_fed

LOGGERS = {
    "csv": lambda folder: CSVLogger(folder),
    "tensorboard": lambda folder: TensorBoardLogger(folder),
    "both": lambda folder: [CSVLogger(folder), TensorBoardLogger(folder)],
}


class Returns(Metric):
    """Returns a value of any kind."""

    full_state_update = False

    def __init__(self, value, **settings):
        super().__init__()
        self.returned = lambda: value  # a function, so that a copy of the metric returns the very same
        self.__dict__.update(settings)

    def update(self, x):
        pass

    def compute(self):
        return self.returned()


@dataclass
class Pair:
    low: object
    high: object


class Opaque:
    """Nothing that anybody knows."""


class Own(torch.Tensor):
    """A tensor class of somebody's own, as those of images with their position."""


def quietly(make):
    """Make what torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


OPAQUE = Opaque()
Both = namedtuple("Both", "low high")

LOGGED = {
    "nan": (tensor(torch.nan), {"": torch.nan}),
    "inf": (tensor(torch.inf), {"": torch.inf}),
    "minus-inf": (-float("inf"), {"": -torch.inf}),
    "nan-per-class": (tensor([0.5, torch.nan]), {"/0": 0.5, "/1": torch.nan}),
    "bool": (tensor(True), {"": 1.0}),
    "python-bool": (False, {"": 0.0}),
    "integer": (tensor(7), {"": 7.0}),
    "large-integer": (2**70, {"": 2.0**70}),
    "fraction": (Fraction(1, 4), {"": 0.25}),
    "numpy": (np.float32(0.25), {"": 0.25}),
    "numpy-bool": (np.bool_(True), {"": 1.0}),
    "numpy-array-of-one": (np.array(3), {"": 3.0}),
    "python-float": (123456789.123, {"": 123456789.123}),
    "large-python-float": (1e300, {"": 1e300}),
    "half": (tensor(0.25, dtype=torch.bfloat16), {"": 0.25}),
    "double": (tensor(0.1, dtype=torch.float64), {"": 0.1}),
    "float8": (tensor(0.5).to(torch.float8_e4m3fn), {"": 0.5}),
    "unsigned": (tensor(2**63, dtype=torch.uint64), {"": 2.0**63}),
    "unsigned-per-class": (tensor([1, 2], dtype=torch.uint16), {"/0": 1.0, "/1": 2.0}),
    "of-a-subclass": (tensor(0.5).as_subclass(Own), {"": 0.5}),
    "with-a-graph": (tensor(0.5, requires_grad=True) * 1, {"": 0.5}),
    "number-keys": ({1: tensor(0.5), 2.5: 0.25}, {"/1": 0.5, "/2.5": 0.25}),
    "tuple-keys": ({(0, 1): tensor(0.5)}, {"/(0, 1)": 0.5}),
    "none-and-bool-keys": ({None: 0.5, True: 0.25}, {"/None": 0.5, "/True": 0.25}),
    "nested-keys": ({"a": {0: 0.5}, "b/c": 0.25}, {"/a/0": 0.5, "/b/c": 0.25}),
}

WHOLE = {
    "unknown-type": OPAQUE,
    "string": "0.5",
    "none": None,
    "bytes": b"0.5",
    "empty-vector": torch.zeros(0),
    "empty-list": [],
    "complex": tensor(1 + 2j),
    "complex-number": 1 + 2j,
    "numpy-complex": np.complex64(1j),
    "complex-vector": tensor([1j, 2j]),
    "too-large-a-number": 10**400,
    "numpy-vector": np.arange(2.0),
    "tuple": (tensor(0.5), tensor(0.25)),
    "namedtuple": Both(tensor(0.5), 0.25),
    "list-of-arrays": [torch.eye(2), torch.zeros(3)],
    "set": {1, 2},
    "sparse": torch.eye(2).to_sparse(),
    "sparse-vector": tensor([0.5, 0.25]).to_sparse(),
    "meta": torch.empty((), device="meta"),
    "meta-vector": torch.empty(2, device="meta"),
    "quantized": quietly(lambda: torch.quantize_per_tensor(tensor(1.0), 0.1, 0, torch.quint8)),
    "nested": quietly(lambda: torch.nested.nested_tensor([tensor([1.0]), tensor([1.0, 2.0])])),
}


def settings_of(value):
    """Where a vector has a number for each class, the setting that says so."""
    vector = isinstance(value, torch.Tensor) and (value.is_nested or value.shape == (2,))
    return {"num_classes": 2, "average": None} if vector else {}


def fit(value, folder, *, logger=None, options=None, **settings):
    module = Fed({"m": Returns(value, **settings), "beside": MeanSquaredError()})
    module.metric_logging = MetricLogging() if options is None else options
    batches = [{"m": ((tensor(1.0),), {}), "beside": ((tensor([1.0]), tensor([3.0])), {})}]
    trainer, said = fit_fed(module, batches, folder, logger=CapturingLogger() if logger is None else logger)
    return module, trainer, said


@pytest.mark.parametrize("logger", LOGGERS.values(), ids=LOGGERS)
@pytest.mark.parametrize(("value", "wanted"), LOGGED.values(), ids=LOGGED)
@pytest.mark.filterwarnings("ignore:.*NaN or Inf found in input tensor")
def test_every_kind_of_number_is_logged_as_it_is(value, wanted, logger, tmp_path):
    """NaN and infinities, booleans, integers and numbers without a dtype, and keys that are no strings."""
    module, trainer, said = fit(value, tmp_path, logger=logger(tmp_path), **settings_of(value))
    keys = {f"val/m{suffix}": number for suffix, number in wanted.items()}
    assert set(trainer.callback_metrics) == {*keys, "val/beside"} == set(module.expected_metric_keys("val"))
    logged = {key: trainer.callback_metrics[key].item() for key in keys}
    torch.testing.assert_close(logged, keys, rtol=1e-7, atol=0, equal_nan=True)
    assert trainer.callback_metrics["val/beside"].item() == 4.0
    assert said == []


def is_kept(kept, value):
    """Whether a kept value is the returned one, tensors by value where they have any."""
    if isinstance(value, torch.Tensor) and (value.is_meta or value.is_nested or value.is_quantized):
        forms = [(one.is_meta, one.is_nested, one.is_quantized, one.dtype, one.numel()) for one in (kept, value)]
        return forms[0] == forms[1]
    if isinstance(value, torch.Tensor):
        return kept.is_sparse == value.is_sparse and torch.equal(kept.to_dense(), value.to_dense())
    if isinstance(value, list | tuple):
        return type(kept) is type(value) and all(map(is_kept, kept, value)) and len(kept) == len(value)
    return np.array_equal(kept, value) if isinstance(value, np.ndarray) else kept is value or kept == value


@pytest.mark.parametrize("logger", LOGGERS.values(), ids=LOGGERS)
@pytest.mark.parametrize("value", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("place", ["alone", "in-a-dict"])
def test_everything_else_is_kept_whole_and_said_once(value, place, logger, tmp_path):
    """What no logger can take is in ``metric_results`` as it was returned, and nothing comes near Lightning."""
    key = "val/m" if place == "alone" else "val/m/part"
    given = value if place == "alone" else {"part": value}
    module, trainer, said = fit(given, tmp_path, logger=logger(tmp_path), **(settings_of(given)))
    assert set(trainer.callback_metrics) == {"val/beside"} == set(module.expected_metric_keys("val"))
    assert is_kept(module.metric_results["val"][key], value)
    assert [f"{key!r} is no scalar" in message for message in said] == [True]


@pytest.mark.parametrize(
    "layout",
    [{"num_classes": 2, "average": None}, {"num_classes": None, "average": None}],
    ids=["two-classes", "any-number-of-classes"],
)
@pytest.mark.parametrize(
    "value", [torch.zeros(0), tensor([1j, 2j]), {}, {"a": "text"}], ids=["empty", "complex", "dict", "text"]
)
def test_a_vector_that_is_none_is_not_lost(layout, value, tmp_path):
    """One number a class was promised, and something else came: it is kept whole under the metric's name."""
    module, trainer, _ = fit(value, tmp_path, **layout)
    assert set(trainer.callback_metrics) == {"val/beside"}
    kept = module.metric_results["val"]["val/m"]
    assert torch.equal(kept, value) if isinstance(value, torch.Tensor) else kept == value


@pytest.mark.parametrize(("value", "wanted"), LOGGED.values(), ids=LOGGED)
def test_the_best_of_every_kind_of_number_is_tracked_and_saved(value, wanted, tmp_path):
    """Also of dtypes that torch does not compare; NaN is no best value, and a checkpoint has plain tensors alone."""
    options = MetricLogging(track_best={f"val/m{suffix}": "max" for suffix in wanted})
    _, trainer, _ = fit(value, tmp_path, options=options, **settings_of(value))
    bests = {f"val/m{suffix}_best": number for suffix, number in wanted.items() if number == number}
    found = {key: one.item() for key, one in trainer.callback_metrics.items() if key.endswith("_best")}
    assert found == pytest.approx(bests)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)["metric_mixin"]["best"]
    assert {f"{key}_best": one["value"].item() for key, one in saved.items()} == pytest.approx(bests)


def test_a_dataclass_is_kept_whole(tmp_path):
    """A value of somebody's own class is kept, its tensors without a graph."""
    module, trainer, _ = fit(Pair(tensor(0.5, requires_grad=True), "x"), tmp_path)
    kept = module.metric_results["val"]["val/m"]
    assert set(trainer.callback_metrics) == {"val/beside"}
    assert isinstance(kept, Pair)
    assert (kept.low.item(), kept.low.requires_grad, kept.high) == (0.5, False, "x")


def test_an_empty_dict_has_no_entries(tmp_path):
    """Nothing was returned, so nothing is logged or kept, and the neighbour is."""
    module, trainer, said = fit({}, tmp_path)
    assert set(trainer.callback_metrics) == {"val/beside"} == set(module.metric_results["val"])
    assert said == []


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"": 0.5}, "is empty"),
        ({"a\nb": 0.5}, "cannot be printed"),
        ({" a": 0.5}, "begins or ends with a space"),
        ({"a": {"x/../y": 0.5}}, "'..' between slashes"),
        ({"a\\b": 0.5}, "backslash"),
        ({"dataloader_idx_0": 0.5}, "dataloader_idx_"),
        ({("a\n",): 0.5}, "backslash"),
    ],
    ids=["empty", "line", "space", "dots", "backslash", "loader", "tuple"],
)
def test_a_key_of_a_dict_that_no_logger_can_take_is_an_error(value, fault, tmp_path):
    """The error, at the sanity check, names the metric, the key and what is wrong."""
    with pytest.raises(DeclarationError, match=f"'m' returns a dict with the key .*{fault}"):
        fit(value, tmp_path)


def test_two_keys_of_a_dict_with_one_text_are_an_error(tmp_path):
    """``1`` and ``"1"`` would be logged under one key: the error names it."""
    with pytest.raises(KeyCollisionError, match="'val/m/1'"):
        fit({1: tensor(0.5), "1": tensor(0.25)}, tmp_path)


def test_a_classwise_wrapper_around_what_is_no_vector_keeps_it(tmp_path):
    """Labels for two classes, and a metric that returns text: the text is kept, under the wrapper's name."""
    module = Fed({"m": ClasswiseWrapper(Returns("text", num_classes=2, average=None), ["a", "b"])})
    trainer, _ = fit_fed(module, [{"m": ((tensor(1.0),), {})}], tmp_path)
    assert module.metric_results["val"] == {"val/m": "text"}
    assert set(trainer.callback_metrics) == set()
