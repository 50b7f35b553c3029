"""Errors, warnings, and the words in them."""

import builtins
import inspect

import pytest

import metric_mixin
from metric_mixin import MetricMixinError, MetricMixinWarning, UnknownMetricError
from metric_mixin import _errors as errors

CHILDREN = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, MetricMixinError) and cls is not MetricMixinError
]


@pytest.mark.parametrize("error", CHILDREN, ids=lambda cls: cls.__name__)
def test_every_error_is_public_and_inherits_a_builtin(error):
    """Each child is exported and can also be caught as the builtin that fits it."""
    fitting = [c for c in error.__mro__ if vars(builtins).get(c.__name__) is c]
    assert getattr(metric_mixin, error.__name__) is error
    assert error.__name__ in metric_mixin.__all__
    assert set(fitting) - {Exception, BaseException, object}


def test_a_key_error_of_ours_prints_its_message_as_it_is():
    """``str`` of an unknown metric's error is the message, not its repr, as KeyError would have it."""
    assert str(UnknownMetricError("No metric is named 'x'.")) == "No metric is named 'x'."


def test_public_names_are_sorted_and_exist():
    """``__all__`` is sorted and each name in it can be imported."""
    assert metric_mixin.__all__ == sorted(metric_mixin.__all__)
    assert all(hasattr(metric_mixin, name) for name in metric_mixin.__all__)


@pytest.mark.parametrize(
    ("names", "words"), [([], "none"), (["a"], "'a'"), (["a", 2], "'a', 2")], ids=["none", "one", "two"]
)
def test_listed_names_each_by_its_repr(names, words):
    """A list for a message shows each item's repr, and says so where there is none."""
    assert errors.listed(names) == words


@pytest.mark.parametrize(
    ("name", "candidates", "words"),
    [
        ("vall/acc", ["val/acc", "val/f1", "train/loss"], "'val/acc'"),
        ("zzz", ["val/acc", "val/acc"], "'val/acc'"),
        ("zzz", [str(i) for i in range(20)], ", ".join(repr(str(i)) for i in range(10))),
        ("zzz", [], "none"),
    ],
    ids=["like", "unlike-once", "unlike-ten", "nothing"],
)
def test_closest_starts_with_the_most_similar(name, candidates, words):
    """The candidate most like the name comes first; where none is like it, up to ten are shown, each once."""
    assert errors.closest(name, candidates).startswith(words)
    assert errors.closest("zzz", candidates).count("'") <= 20


def test_a_thing_said_is_a_user_warning_of_ours_at_the_caller(monkeypatch):
    """``said`` warns by our class, which is a UserWarning, at the line of its caller, and on rank zero only."""
    from lightning.pytorch.utilities import rank_zero_only

    with pytest.warns(MetricMixinWarning, match="x is odd") as caught:
        errors.said("x is odd")
    assert caught[0].filename == __file__
    assert issubclass(MetricMixinWarning, UserWarning)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    errors.said("x is odd")  # a warning would be an error here
