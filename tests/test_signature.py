"""What a metric was declared with, in words that ranks compare."""

import pytest
import torch
from torch import tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy
from torchmetrics.wrappers import MinMaxMetric

from metric_mixin import StageMetrics
from metric_mixin._signature import settings_of


class Odd(Metric):
    """Has attributes of every kind."""

    full_state_update = False

    def __init__(self, **attributes):
        super().__init__()
        self.__dict__.update(attributes)
        self.add_state("n", tensor(0.0), dist_reduce_fx="sum")

    def update(self):
        pass

    def compute(self):
        return self.n


@pytest.mark.parametrize(
    ("one", "other", "setting"),
    [
        (MulticlassAccuracy(3), MulticlassAccuracy(3, top_k=2), ".top_k"),
        (MulticlassAccuracy(3), MulticlassAccuracy(4), ".tp"),
        (MulticlassAccuracy(3), MulticlassAccuracy(3, average="micro"), ".average"),
        (BinaryAUROC(thresholds=[0.1, 0.5]), BinaryAUROC(thresholds=[0.1, 0.6]), ".thresholds"),
        (BinaryAUROC(thresholds=3), BinaryAUROC(), ".thresholds"),
        (MinMaxMetric(MulticlassAccuracy(3)), MinMaxMetric(MulticlassAccuracy(3, top_k=2)), "._base_metric.top_k"),
        (Odd(a=(1, "x")), Odd(a=(1, "y")), ".a"),
        (Odd(a={1, 2}), Odd(a={1, 3}), ".a"),
        (Odd(a=torch.float32), Odd(a=torch.float64), ".a"),
    ],
    ids=["top-k", "classes", "average", "values", "none", "wrapped", "tuple", "set", "dtype"],
)
def test_a_setting_that_differs_is_named(one, other, setting):
    """Of the metric or of one that it wraps; numbers, texts, dtypes, tensors and what holds such."""
    one, other = settings_of(one), settings_of(other)
    assert setting in {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def test_the_same_declaration_has_the_same_words_whatever_it_has_seen():
    """Fed or not, moved or not: what ranks compare was there before."""
    metric = MulticlassAccuracy(3)
    before = settings_of(metric)
    metric.update(tensor([0, 1]), tensor([0, 2]))
    assert settings_of(metric) == before == settings_of(MulticlassAccuracy(3))


@pytest.mark.parametrize(
    "value",
    [torch.eye(2).to_sparse(), torch.empty(2, device="meta"), object(), print, [object()]],
    ids=["sparse", "meta", "object", "function", "list"],
)
def test_what_has_no_words_is_left_out(value):
    """An attribute that nobody can compare is no reason to refuse a metric."""
    assert ".a" not in settings_of(Odd(a=value))
    assert StageMetrics({"odd": Odd(a=value)}).names() == ["odd"]
