"""What a metric, a dataloader or a class may be called."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_mixin._names import RESERVED, name_fault

LEGAL = [
    "acc",
    "iou@0.5",
    "map/map_50",
    "a.b",
    "~x",
    "values",
    "c++",
    "c#",
    "top 5",
    "...",
    "a/...",
    "été",
    "日本",
    "1",
]


@pytest.mark.parametrize("name", LEGAL)
def test_a_printable_path_is_legal(name):
    """A printable string without empty or dotted parts is a legal name, whatever punctuation it has."""
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (3, "is int, not a string"),
        (None, "is NoneType, not a string"),
        (b"acc", "is bytes, not a string"),
        ("", "is empty"),
        ("a\nb", "cannot be printed"),
        ("a\tb", "cannot be printed"),
        ("\x00", "cannot be printed"),
        ("a\u200bb", "cannot be printed"),
        ("a\\b", "backslash"),
        (" acc", "begins or ends with a space"),
        ("acc ", "begins or ends with a space"),
        ("/acc", "empty part"),
        ("acc/", "empty part"),
        ("a//b", "empty part"),
        ("/", "empty part"),
        (".", "'.' or '..'"),
        ("..", "'.' or '..'"),
        ("a/../b", "'.' or '..'"),
        ("./a", "'.' or '..'"),
        ("acc/dataloader_idx_0", "dataloader_idx_"),
        ("my_dataloader_idx_x", "dataloader_idx_"),
    ],
    ids=repr,
)
def test_an_illegal_name_is_told_what_is_wrong_with_it(name, fault):
    """Each kind of illegal name gets a reason of its own, so that the message helps."""
    assert fault in name_fault(name)


@given(st.text(max_size=12))
@settings(deadline=None, max_examples=200)
def test_a_legal_name_is_safe_as_a_path_and_in_one_line(name):
    """Whatever passes is one printable line that a file back end cannot read as another or an outer path."""
    if name_fault(name) is None:
        parts = name.split("/")
        assert name.strip() == name
        assert len(name.splitlines()) == 1
        assert not {"", ".", ".."} & set(parts)
        assert "\\" not in name


def test_the_reserved_name_is_legal_as_such():
    """``loss`` is kept from metrics by the declaration, not by the rules for names."""
    assert RESERVED == "loss"
    assert name_fault(RESERVED) is None
