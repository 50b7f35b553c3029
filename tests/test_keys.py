"""Computed values become one entry a key."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics.classification import MulticlassRecall

from metric_mixin._errors import ClassNamesError, DeclarationError, KeyCollisionError
from metric_mixin._keys import Entry, check_distinct, expected, flatten
from metric_mixin._layout import Array, Fields, PerClassSeen, PerLabel, Scalar, Stems

UNKNOWN = Scalar(known=False)
PARTS = st.text("abc.@~ é0", min_size=1, max_size=4).filter(lambda s: s == s.strip() and s not in (".", ".."))
SCALARS = st.one_of(
    st.floats(-10, 10, width=32),
    st.integers(-100, 100),
    st.floats(-10, 10, width=32).map(torch.tensor),
    st.integers(-100, 100).map(torch.tensor),
)
ARRAYS = st.one_of(
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=4).map(torch.tensor),
    st.just(torch.eye(2)),
    st.just((tensor([0.0, 1.0]), tensor([1.0, 0.0]))),
    st.just([tensor(1.0)]),
    st.just("a string"),
    st.none(),
)
VALUES = st.recursive(SCALARS | ARRAYS, lambda inner: st.dictionaries(PARTS, inner, max_size=4), max_leaves=12)


def leaves(value, path):
    """The reference: paths and leaves of nested dicts."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, [*path, key])
    else:
        yield "/".join(path), value


def is_number(leaf):
    return isinstance(leaf, int | float) or (isinstance(leaf, torch.Tensor) and leaf.ndim == 0)


@given(VALUES)
@settings(deadline=None, max_examples=150)
def test_a_nested_value_has_one_entry_a_leaf(value):
    """Entries are complete and distinct, in the value's order, and their values are the leaves, arrays untouched."""
    entries = flatten("m", UNKNOWN, value)
    wanted = list(leaves(value, ["m"]))
    assert [entry.name for entry in entries] == [name for name, _ in wanted]
    assert len({entry.name for entry in entries}) == len(entries)
    for entry, (_, leaf) in zip(entries, wanted, strict=True):
        assert entry.metric == "m"
        assert entry.is_scalar == is_number(leaf)
        if entry.is_scalar:
            assert entry.value.shape == ()
            assert entry.value.item() == (leaf.item() if isinstance(leaf, torch.Tensor) else leaf)
        else:
            assert entry.value is leaf


@given(
    count=st.integers(1, 6),
    first=st.integers(0, 1),
    named=st.booleans(),
    sized=st.booleans(),
    affixes=st.sampled_from([("", ""), ("p-", ""), ("", "_q"), ("p.", ".q")]),
    squeezed=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_per_label_values_have_the_label_at_their_own_place(count, first, named, sized, affixes, squeezed):
    """The i-th value has the i-th label, whether there are names, a background that is left out, or one value only."""
    names = [f"n{i}" for i in range(count + first)] if named else None
    layout = PerLabel(count if sized else None, first=first, prefix=affixes[0], postfix=affixes[1])
    numbers = np.arange(count) / 8
    value = tensor(numbers[0]) if squeezed and count == 1 else torch.from_numpy(numbers)
    entries = flatten("m", layout, value, names)
    labels = [f"n{i}" if named else str(i) for i in range(first, count + first)]
    wanted = [f"m/{affixes[0]}{label}{affixes[1]}" for label in labels]
    assert [entry.name for entry in entries] == wanted
    assert [entry.value.item() for entry in entries] == numbers.tolist()
    assert {entry.path for entry in entries} == {"m"}
    assert all(entry.value.shape == () and entry.is_scalar for entry in entries)
    assert [entry.name for entry in expected("m", layout, names)] == (wanted if sized else [])


TREES = st.recursive(
    st.sampled_from([Scalar(), PerLabel(1), PerLabel(3), PerLabel(2, of="output", labels=("x", "y"))]),
    lambda inner: st.dictionaries(PARTS, inner, min_size=1, max_size=3).map(Fields),
    max_leaves=6,
)


def value_of(layout):
    if isinstance(layout, Fields):
        return {key: value_of(part) for key, part in layout.fields.items()}
    return torch.rand(layout.size).squeeze() if isinstance(layout, PerLabel) else torch.rand(())


@given(TREES)
@settings(deadline=None, max_examples=80)
def test_expected_names_are_those_of_flatten(layout):
    """Where everything is known, the keys promised before a value are the keys of the value."""
    value = value_of(layout)
    assert [e.name for e in expected("m", layout)] == [e.name for e in flatten("m", layout, value)]


@pytest.mark.parametrize(
    ("layout", "value", "names"),
    [
        (Scalar(), tensor([[0.5]]), ["m"]),
        (UNKNOWN, tensor(0.5, dtype=torch.float64), ["m"]),
        (UNKNOWN, np.float32(0.5), ["m"]),
        (UNKNOWN, True, ["m"]),
        (PerLabel(2), {"anything_0": tensor(0.1), "anything_1": 0.2}, ["m/0", "m/1"]),
        (PerLabel(2, labels=("a", "b")), {"x": tensor(0.1), "y": tensor([0.2])}, ["m/a", "m/b"]),
        (Fields({"a": PerLabel(1)}), {"a": tensor(0.1), "b": tensor(0.2)}, ["m/a/0", "m/b"]),
        (UNKNOWN, {1: tensor(0.1), "x": {2: 3}}, ["m/1", "m/x/2"]),
    ],
    ids=["one-element", "double", "numpy", "bool", "dict-per-label", "dict-labels", "unknown-field", "number-keys"],
)
def test_scalars_have_their_documented_name(layout, value, names):
    """Each form of a scalar, also in a dict, is found under its name as a 0-d tensor."""
    entries = flatten("m", layout, value)
    assert [entry.name for entry in entries] == names
    assert all(entry.is_scalar and entry.value.ndim == 0 for entry in entries)


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        (Scalar(), torch.rand(3)),
        (Array(), tensor(0.5)),
        (Array(), tensor([0.5])),
        (Array(), 0.5),
        (PerLabel(3), torch.rand(2)),
        (PerLabel(1), torch.rand(2)),
        (PerLabel(2), torch.rand(2, 2)),
        (PerLabel(2), (torch.rand(2), torch.rand(2))),
        (PerLabel(2), {"a": torch.rand(3), "b": tensor(1.0)}),
        (UNKNOWN, "0.5"),
        (UNKNOWN, None),
        (UNKNOWN, tensor(1 + 2j)),
        (UNKNOWN, 1 + 2j),
        (UNKNOWN, 10**400),
        (Scalar(), torch.zeros(0)),
        (PerLabel(2), tensor([1j, 2j])),
        (PerLabel(None), torch.zeros(0)),
        (PerLabel(None), {}),
    ],
    ids=[
        "vector", "row", "one-row", "number", "other-size", "one-expected", "matrix", "tuple", "dict-of-vectors",
        "string", "none", "complex", "complex-number", "no-float", "empty", "complex-classes", "no-classes",
        "no-entries",
    ],
)  # fmt: skip
def test_anything_else_is_kept_whole_under_the_name(layout, value):
    """What is no scalar and has no names is one entry with the very value, never named by a guess."""
    assert flatten("m", layout, value, ["a", "b", "c"]) == [Entry("m", "m", None, value, is_scalar=False)]


@pytest.mark.parametrize(
    ("layout", "value", "names"),
    [
        (PerLabel(2), tensor([[0.1, 0.2]]), {"m/0": 0.1, "m/1": 0.2}),
        (Stems(("DP", "EO")), {"EO_1_0": 0.5, "DP_0_1": tensor(0.25)}, {"m/EO": 0.5, "m/DP": 0.25}),
        (PerClassSeen((), ("iou",), "iou/cl_"), {"iou": 0.5, "iou/cl_7": 0.25}, {"m/iou": 0.5, "m/iou/7": 0.25}),
        (Array(), {"a": 0.5, "b": {"c": tensor(0.25)}}, {}),
    ],
    ids=["row", "stems", "mark", "dict-of-arrays"],
)
def test_forms_of_single_classes_have_their_documented_names(layout, value, names):
    """A row of one number a class, keys that hold what an epoch found, and a dict of which nothing is a number."""
    entries = flatten("m", layout, value)
    assert {e.name: pytest.approx(float(e.value)) for e in entries if e.is_scalar} == names


@pytest.mark.parametrize(
    ("key", "fault"), [("", "is empty"), ("a\nb", "printed"), ("a/../b", "between slashes"), ((" ", "\\"), "backslash")]
)
@pytest.mark.parametrize(
    "layout", [UNKNOWN, Fields({}), Array(), Stems(("DP",))], ids=lambda layout: type(layout).__name__
)
def test_a_dict_key_that_is_no_legal_name_is_an_error(layout, key, fault):
    """The error names the metric, the key and what is wrong with it."""
    with pytest.raises(DeclarationError, match=f"'m' returns a dict with the key .*{fault}"):
        flatten("m", layout, {"good": 0.5, key: 0.25})


def test_dtypes_are_kept():
    """Flattening converts no tensor: each entry has the dtype of the value it comes from."""
    value = {"a": tensor(1), "b": tensor(0.5, dtype=torch.float64), "c": torch.rand(2, dtype=torch.float16)}
    layout = Fields({"a": Scalar(), "b": Scalar(), "c": PerLabel(2)})
    dtypes = [entry.value.dtype for entry in flatten("m", layout, value)]
    assert dtypes == [torch.int64, torch.float64, torch.float16, torch.float16]


def flattened(metric, layout, names):
    return flatten(metric, layout, torch.rand(layout.size), names)


@pytest.mark.parametrize("use", [expected, flattened])
@pytest.mark.parametrize(
    ("layout", "names", "parts"),
    [
        (PerLabel(3), ["a", "b"], ["3 classes", "gives it 2", "'a', 'b'"]),
        (PerLabel(2), ["a", "b", "c"], ["2 classes", "gives it 3", "'a', 'b', 'c'"]),
        (PerLabel(2, first=1), ["a", "b"], ["3 classes", "gives it 2", "'a', 'b'"]),
        (PerLabel(2, of="output"), ["a"], ["2 outputs", "gives it 1", "'a'"]),
        (PerLabel(2), [], ["2 classes", "gives it 0", "none"]),
        (PerLabel(3, labels=("a", "b")), None, ["3 classes", "`labels` are 2", "'a', 'b'"]),
        (PerLabel(2), ["a", "b//c"], ["label 'b//c'", "empty part"]),
        (PerLabel(2), ["a", ""], ["label ''", "is empty"]),
        (PerLabel(2, labels=("a", " b")), None, ["label ' b'", "a space"]),
        (PerLabel(2, prefix="/", postfix=""), None, ["'/0'", "empty part"]),
        (PerLabel(3), ["a", "b", "a"], ["label 'a'", "more than once"]),
        (PerLabel(3, labels=("b", "b", "a")), None, ["label 'b'", "more than once"]),
    ],
    ids=[
        "too-few", "too-many", "background", "outputs", "none", "own-labels", "double-slash", "empty", "space",
        "template", "twice", "own-twice",
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_an_error(use, layout, names, parts):
    """The error names the metric, how many classes it has, and the names that came; before a value as well as after."""
    with pytest.raises(ClassNamesError) as caught:
        use("recall", layout, names)
    assert "'recall'" in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_metrics_own_labels_go_before_class_names():
    """``labels`` of a ClasswiseWrapper win over class names of any number."""
    entries = flatten("m", PerLabel(2, labels=("x", "y")), torch.rand(2), ["a", "b", "c"])
    assert [entry.name for entry in entries] == ["m/x", "m/y"]


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ([("k", "metric 'a'"), ("j", "metric 'b'"), ("k", "metric 'c'")], ["'k'", "metric 'a'", "metric 'c'"]),
        ([("k", "metric 'a'"), ("k", "`self.log`")], ["'k'", "metric 'a'", "`self.log`"]),
    ],
    ids=["metrics", "user"],
)
def test_two_sources_of_one_key_are_an_error_that_names_both(keys, parts):
    """A collision names the key and its two sources."""
    with pytest.raises(KeyCollisionError, match="Two sources") as caught:
        check_distinct(iter(keys))
    for part in parts:
        assert part in str(caught.value)


def test_distinct_keys_pass():
    """Different keys of one source, and no keys at all, are no collision."""
    check_distinct([("a", "x"), ("b", "x")])
    check_distinct([])


# Mean average precision: dicts as torchmetrics 1.9 returns them (detection/mean_ap.py, detection/helpers.py)

STATS = {"map": tensor(0.5), "map_50": tensor(0.75), "map_small": tensor(-1.0), "mar_100": tensor(0.25)}
MEAN_AP = PerClassSeen(per_class=("map_per_class", "mar_100_per_class"), scalars=tuple(STATS))
PLAIN_AP = PerClassSeen(per_class=(), scalars=(*STATS, "map_per_class", "mar_100_per_class"))


def seen(values, classes):
    return {**STATS, "map_per_class": values, "mar_100_per_class": values, "classes": classes}


@pytest.mark.parametrize(
    ("values", "classes", "names", "labels"),
    [
        (tensor([0.1, 0.2, 0.3]), tensor([0, 1, 2]), None, ["0", "1", "2"]),
        (tensor([0.1, 0.2]), tensor([5, 2], dtype=torch.int32), None, ["5", "2"]),
        (tensor([0.1, 0.2]), tensor([2, 0]), ["ant", "bee", "cat"], ["cat", "ant"]),
        (tensor([0.1]), tensor([1], dtype=torch.int32), ["ant", "bee"], ["bee"]),
        (tensor(0.1), tensor(1), ["ant", "bee"], ["bee"]),
        (tensor(0.1), tensor(7, dtype=torch.int32), None, ["7"]),
        (tensor([0.1, -1.0]), tensor([0, 1]), None, ["0", "1"]),
        (tensor([]), tensor([], dtype=torch.int32), ["ant"], []),
    ],
    ids=["three", "unsorted", "named", "one", "one-squeezed", "one-squeezed-index", "absent-class", "none"],
)
def test_mean_average_precision_per_class_has_the_name_of_the_class_seen(values, classes, names, labels):
    """Each value stands under the class that ``classes`` lists for it, at any number of classes seen."""
    value = seen(values, classes)
    entries = {entry.name: entry for entry in flatten("ap", MEAN_AP, value, names)}
    of_classes = {f"ap/{sub}/{label}" for sub in MEAN_AP.per_class for label in labels}
    assert {name for name, entry in entries.items() if entry.is_scalar} == {f"ap/{k}" for k in STATS} | of_classes
    for sub in MEAN_AP.per_class:
        for label, number in zip(labels, values.reshape(-1).tolist(), strict=True):
            assert entries[f"ap/{sub}/{label}"].value.item() == number
            assert entries[f"ap/{sub}/{label}"].value.shape == ()
    assert not entries["ap/classes"].is_scalar
    assert entries["ap/classes"].value is classes


@pytest.mark.parametrize("placeholder", [tensor([-1.0]), tensor(-1.0)], ids=["vector", "squeezed"])
@pytest.mark.parametrize("classes", [tensor(3), tensor([0, 1, 2])], ids=["one-class", "three-classes"])
def test_placeholders_of_switched_off_class_metrics_are_scalars(placeholder, classes):
    """Without class metrics the -1 that stands for them is one number under its own name, however many classes."""
    entries = flatten("ap", PLAIN_AP, seen(placeholder, classes), ["a", "b", "c", "d"])
    assert {e.name: e.value.item() for e in entries if e.is_scalar} == {
        **{f"ap/{key}": stat.item() for key, stat in STATS.items()},
        "ap/map_per_class": -1.0,
        "ap/mar_100_per_class": -1.0,
    }


def test_an_epoch_without_images_has_the_stats_and_no_class():
    """Where there was no image, torchmetrics leaves out the per-class entries, and so do the keys."""
    entries = flatten("ap", MEAN_AP, {**STATS, "classes": tensor([], dtype=torch.int32)})
    assert [e.name for e in entries if e.is_scalar] == [f"ap/{key}" for key in STATS]


def test_the_extended_summary_is_kept_whole():
    """Precision arrays and the dict of IoUs are one entry each, not one key an image and class."""
    summary = {"ious": {(0, 1): torch.rand(2, 2)}, "precision": torch.rand(2, 3, 1), "recall": torch.rand(1, 1)}
    value = {**seen(tensor([0.1]), tensor([4])), **summary}
    entries = {e.name: e for e in flatten("ap", MEAN_AP, value)}
    for key, whole in summary.items():
        assert entries[f"ap/{key}"].value is whole
        assert not entries[f"ap/{key}"].is_scalar


@pytest.mark.parametrize(
    ("classes", "names", "parts"),
    [
        (tensor([0, 2]), ["ant", "bee"], ["class 2", "gives it 2", "'ant', 'bee'"]),
        (tensor(1), ["ant"], ["class 1", "gives it 1", "'ant'"]),
        (tensor([-1, 0]), ["ant", "bee"], ["class -1", "gives it 2"]),
        (tensor([0, 1]), ["ant", "b//c"], ["label 'b//c'", "empty part"]),
        (tensor([0, 1]), ["ant", "ant"], ["'ant'", "more than once"]),
    ],
    ids=["beyond", "one-squeezed", "negative", "illegal", "twice"],
)
def test_names_that_do_not_fit_the_classes_seen_are_an_error(classes, names, parts):
    """The error names the metric, the class, and the names that came."""
    with pytest.raises(ClassNamesError) as caught:
        flatten("ap", MEAN_AP, seen(torch.rand(classes.numel()), classes), names)
    assert "'ap'" in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_mean_average_precision_promises_its_scalars():
    """Before a value, the classes that will be seen are unknown: only the stats are promised."""
    assert [e.name for e in expected("ap", MEAN_AP, ["ant"])] == [f"ap/{key}" for key in STATS]


def test_the_whole_way_agrees_with_a_count_by_hand():
    """Real per-class recalls land under the right names: 1 of 2, 2 of 2, 0 of 1."""
    metric = MulticlassRecall(3, average=None)
    metric.update(tensor([0, 1, 1, 1, 0]), tensor([0, 0, 1, 1, 2]))
    entries = flatten("recall", PerLabel(3), metric.compute(), ["ant", "bee", "cat"])
    assert {e.name: e.value.item() for e in entries} == {"recall/ant": 0.5, "recall/bee": 1.0, "recall/cat": 0.0}
