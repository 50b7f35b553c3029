"""What a metric factory returned becomes metrics by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics import MaxMetric, MeanMetric, MetricCollection, MetricTracker, MinMetric, SumMetric
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
from torchmetrics.wrappers import MinMaxMetric

from metric_mixin._declare import declare
from metric_mixin._errors import DeclarationError, DeclarationTypeError, KeyCollisionError

A, B, C, D = MeanMetric(), SumMetric(), MaxMetric(), MinMetric()
COLLECTION = MetricCollection({"b": B, "c": C}, prefix="p-", postfix="-q")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (None, {}),
        ({}, {}),
        ([], {}),
        ((), {}),
        (A, {"MeanMetric": A}),
        ([A, B], {"MeanMetric": A, "SumMetric": B}),
        ((B, A), {"SumMetric": B, "MeanMetric": A}),
        ({"z": A, "a": B}, {"z": A, "a": B}),
        ({"values": A, "iou@0.5": B, "a.b": C}, {"values": A, "iou@0.5": B, "a.b": C}),
        ({"x": {"y": A, "z": {"w": B}}}, {"x/y": A, "x/z/w": B}),
        ({"x/y": A}, {"x/y": A}),
        ({"x": [A, B]}, {"x/MeanMetric": A, "x/SumMetric": B}),
        ({"x": MetricCollection([A, B])}, {"x/MeanMetric": A, "x/SumMetric": B}),
        (MetricCollection([A, B]), {"MeanMetric": A, "SumMetric": B}),
        (COLLECTION, {"p-b-q": B, "p-c-q": C}),
        ({"x": COLLECTION, "y": A}, {"x/p-b-q": B, "x/p-c-q": C, "y": A}),
        ([A, MetricCollection({"b": B})], {"MeanMetric": A, "b": B}),
        ({"x": {}, "y": A}, {"y": A}),
        ({"losses": A}, {"losses": A}),
    ],
    ids=[
        "none", "no-mapping", "no-list", "no-tuple", "metric", "list", "tuple", "mapping-keeps-order", "odd-names",
        "nested", "slash", "list-in-mapping", "collection-in-mapping", "collection", "prefixed-collection",
        "prefixed-in-mapping", "collection-in-list", "empty-mapping-in-mapping", "not-the-reserved-name",
    ],
)  # fmt: skip
def test_names_are_paths_and_objects_are_the_given_ones(declared, expected):
    """Every accepted form gives one metric a name, the path joined by slashes, in the order written."""
    got = declare(declared)
    assert list(got) == list(expected)
    assert all(got[name] is metric for name, metric in expected.items())


def test_further_metrics_may_follow_a_first_one():
    """Metrics may be given one after the other, as a MetricCollection takes them."""
    assert declare(A, B, C) == {"MeanMetric": A, "SumMetric": B, "MaxMetric": C}


def test_further_metrics_may_follow_a_list():
    """A list may be followed by further metrics, as ``MetricCollection([a], b)`` takes them."""
    assert list(declare([A], B)) == list(MetricCollection([A], B)) == ["MeanMetric", "SumMetric"]


def test_a_given_declaration_is_left_as_it_is():
    """Declaring changes neither the given mapping nor the collection in it."""
    given_mapping = {"x": COLLECTION, "y": {"z": A}}
    declare(given_mapping)
    assert list(given_mapping) == ["x", "y"]
    assert list(COLLECTION.keys()) == ["p-b-q", "p-c-q"]


@pytest.mark.parametrize(
    ("declared", "parts"),
    [
        ("acc", ["returned 'acc' (str)"]),
        (3, ["returned 3 (int)"]),
        ({"x": 3}, ["declares int 3", "'x'"]),
        ({"x": {"y": "acc"}}, ["declares str 'acc'", "'x/y'"]),
        ({"x": BinaryAccuracy}, ["'x'", "BinaryAccuracy"]),
        ({"x": None}, ["None", "'x'"]),
        ({"x": nn.Linear(1, 1)}, ["Linear", "'x'"]),
        ([A, 3], ["item 1", "int 3"]),
        ([A, None], ["item 1", "None"]),
        ([{"a": A}], ["item 0", "dict"]),
        ({"x": [A, "b"]}, ["item 1", "str 'b'"]),
        ({A}, ["set"]),
    ],
    ids=[
        "string", "number", "number-in-mapping", "nested", "class", "none", "module", "item", "none-item",
        "mapping-in-list", "list-in-mapping", "set",
    ],
)  # fmt: skip
def test_something_that_is_no_metric_is_an_error(declared, parts):
    """The error names the owner, the place, what came and what was expected, and is a TypeError too."""
    with pytest.raises(DeclarationTypeError) as caught:
        declare(declared, owner="Lit.configure_metrics")
    message = str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert message.startswith("Lit.configure_metrics ")
    assert "expected a Metric" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("declared", "name", "fault"),
    [
        ({"": A}, "''", "is empty"),
        ({3: A}, "3", "is int, not a string"),
        ({None: A}, "None", "is NoneType, not a string"),
        ({"a//b": A}, "'a//b'", "empty part"),
        ({"a": {"../b": A}}, "'../b'", "'.' or '..'"),
        ({"a\\b": A}, "'a\\\\b'", "backslash"),
        ({"x": {"a ": A}}, "'a '", "begins or ends with a space"),
        ({"a/dataloader_idx_1": A}, "'a/dataloader_idx_1'", "dataloader_idx_"),
        (MetricCollection({"b": B}, prefix="/"), "'/b'", "empty part"),
    ],
    ids=["empty", "int", "none", "double-slash", "dots", "backslash", "space", "loader", "collection-prefix"],
)
def test_an_illegal_name_is_an_error_that_says_why(declared, name, fault):
    """The error names the owner, the name, and what is wrong with it."""
    with pytest.raises(DeclarationError) as caught:
        declare(declared, owner="Lit.configure_metrics")
    assert str(caught.value).startswith(f"Lit.configure_metrics declares a metric under the name {name}")
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "name"),
    [({"loss": A}, "loss"), ({"loss": {"x": A}}, "loss/x"), ({"loss/x": A}, "loss/x")],
    ids=["name", "group", "path"],
)
def test_loss_is_reserved(declared, name):
    """``loss`` is no name of a metric, nor of a group of them; the error says so and names the metric's class."""
    with pytest.raises(DeclarationError, match="reserved") as caught:
        declare(declared, owner="Lit.configure_metrics")
    assert "Lit.configure_metrics" in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "MeanMetric" in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "name", "sources"),
    [
        ([A, MeanMetric()], "'MeanMetric'", ["[1]", "MeanMetric"]),
        ({"a": {"b": A}, "a/b": B}, "'a/b'", ["['a']['b'] (MeanMetric)", "['a/b'] (SumMetric)"]),
        ({"a": MetricCollection({"b": A}), "a/b": B}, "'a/b'", ["['a']['b'] (MeanMetric)", "['a/b'] (SumMetric)"]),
        ([MetricCollection({"x": A}), MetricCollection({"x": B})], "'x'", ["[0]['x'] (Mean", "[1]['x'] (Sum"]),
    ],
    ids=["classes", "path", "collection", "two-collections"],
)
def test_two_metrics_under_one_name_are_an_error_that_names_both(declared, name, sources):
    """A collision in the declaration names the key and both places with their classes."""
    with pytest.raises(KeyCollisionError) as caught:
        declare(declared, owner="Lit.configure_metrics")
    for part in ["Lit.configure_metrics", name, *sources]:
        assert part in str(caught.value)


@pytest.mark.parametrize("under", [lambda t: t, lambda t: {"best": t}, lambda t: [t]], ids=["bare", "named", "listed"])
def test_a_metric_tracker_is_refused_with_a_pointer_to_track_best(under):
    """MetricTracker is refused, and the error says what to use in its place."""
    with pytest.raises(DeclarationTypeError, match="MetricTracker") as caught:
        declare(under(MetricTracker(BinaryAccuracy())))
    assert "track_best" in str(caught.value)


def test_a_wrapper_is_one_metric():
    """A wrapper is declared as a whole: what it wraps gets no name of its own."""
    wrapper = MinMaxMetric(BinaryF1Score())
    assert declare({"x": wrapper}) == {"x": wrapper}


PARTS = st.text("abcxyz.@~ é", min_size=1, max_size=3).filter(lambda s: s == s.strip() and s not in (".", ".."))
TREES = st.recursive(st.just(None), lambda inner: st.dictionaries(PARTS, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(PARTS, TREES, max_size=4))
@settings(deadline=None, max_examples=60)
def test_every_metric_of_a_nested_declaration_has_its_path(tree):
    """However mappings are nested, each metric is found under its path, once, in order."""
    paths = []

    def build(node, path):
        if node is None:
            paths.append(("/".join(path), MeanMetric()))
            return paths[-1][1]
        return {name: build(inner, [*path, name]) for name, inner in node.items()}

    got = declare(build(tree, []))
    assert [name for name, _ in paths] == list(got)
    assert all(got[name] is metric for name, metric in paths)
