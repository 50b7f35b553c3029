"""``MetricLogging``: every option is checked when it is made."""

import copy
import dataclasses
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_mixin import MetricLogging, OptionError
from metric_mixin._options import matches

DEFAULTS = {
    "prog_bar": ("*/loss", "train/loss_step"),
    "figures": (),
    "figures_every_n_epochs": 1,
    "track_best": {},
    "class_names": None,
    "val_loaders": (),
    "test_loaders": (),
    "pooled": False,
    "exact_eval": True,
    "on_empty": "skip",
    "on_error": "raise",
    "checkpoint_states": True,
    "metric_dtype": torch.float32,
}


def test_defaults_are_those_of_the_contract():
    """Without arguments every option has its documented default."""
    options = MetricLogging()
    assert {field.name: getattr(options, field.name) for field in dataclasses.fields(options)} == DEFAULTS


@pytest.mark.parametrize("option", [name for name in DEFAULTS if name != "track_best"])
def test_the_default_of_an_option_can_be_asked_for(option):
    """What the user set can be told from what stood there."""
    assert MetricLogging.default(option) == DEFAULTS[option]


def test_the_default_of_a_mapping_option_can_be_asked_for():
    """The default of ``track_best`` is an empty mapping, like what an object without it has."""
    assert MetricLogging.default("track_best") == {}


@pytest.mark.parametrize(
    ("option", "given_value", "stored"),
    [
        *[(o, ["a", "*/b"], ("a", "*/b")) for o in ("prog_bar", "figures")],
        *[(o, [], ()) for o in ("prog_bar", "figures", "val_loaders", "test_loaders")],
        *[(o, ["clean", "noisy/a b"], ("clean", "noisy/a b")) for o in ("val_loaders", "test_loaders")],
        ("figures_every_n_epochs", 5, 5),
        ("track_best", {"val/acc": "max", "val/b": "min", "val/c": "auto"}, None),
        ("class_names", ["cat", "dog"], ("cat", "dog")),
        ("class_names", {"acc*": ["cat", "dog"], "*/f1": ("x",)}, {"acc*": ("cat", "dog"), "*/f1": ("x",)}),
        ("class_names", {"acc*": None, "f1": ["x"]}, {"f1": ("x",)}),
        *[(o, v, v) for o in ("pooled", "exact_eval", "checkpoint_states") for v in (True, False)],
        *[("on_empty", v, v) for v in ("skip", "nan", "raise")],
        *[("on_error", v, v) for v in ("raise", "warn")],
        ("metric_dtype", torch.bfloat16, torch.bfloat16),
        ("metric_dtype", "float64", torch.float64),
        ("metric_dtype", "torch.float64", torch.float64),
        ("metric_dtype", "half", torch.float16),
    ],
    ids=repr,
)
def test_every_accepted_form_is_stored_in_one_form(option, given_value, stored):
    """Lists and dtype names, as YAML gives them, become tuples and dtypes; the rest stays as it is."""
    got = getattr(MetricLogging(**{option: given_value}), option)
    expected = given_value if stored is None else stored
    assert got == expected
    assert type(got) is type(expected)


NOT_STRINGS = ["*/loss", b"x", 3, None, [1], ["a", None], [""], {"a"}, {"a": "b"}]
NOT_FLAGS = [0, 1, "true", None, []]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *[(o, v, "tuple or list of non-empty strings") for o in ("prog_bar", "figures") for v in NOT_STRINGS],
        *[(o, v, "tuple or list of non-empty strings") for o in ("val_loaders", "test_loaders") for v in NOT_STRINGS],
        *[(o, ["a", " b"], "' b' begins or ends with a space") for o in ("val_loaders", "test_loaders")],
        *[(o, ["dataloader_idx_0"], "dataloader_idx_") for o in ("val_loaders", "test_loaders")],
        *[(o, ["a", "a"], "no two alike") for o in ("val_loaders", "test_loaders")],
        *[("figures_every_n_epochs", v, "whole number of at least 1") for v in (0, -1, 1.0, True, "2", None)],
        *[("track_best", v, "mapping from key") for v in (None, "val/acc", ["val/acc"], {1: "max"}, {"": "max"})],
        *[("track_best", {"val/acc": v}, f"not {v!r}") for v in ("best", "MAX", None, True, 1)],
        *[("class_names", v, "tuple or list of non-empty strings") for v in ("cat", 3, [1, 2], ["a", ""], {"a", "b"})],
        ("class_names", ["cat", "dog", "cat"], "'cat' occurs twice"),
        ("class_names", {"acc": ["cat", "cat"]}, "'cat' occurs twice"),
        ("class_names", {"acc": "cat"}, "tuple or list of non-empty strings"),
        *[("class_names", {"acc": v}, "tuple or list of non-empty strings") for v in ("", 0, False, {})],
        ("class_names", {3: ["cat"]}, "tuple or list of non-empty strings"),
        ("class_names", {"": ["cat"]}, "tuple or list of non-empty strings"),
        ("class_names", {"acc": {"f1": ["cat"]}}, "tuple or list of non-empty strings"),
        ("class_names", ["cat\n"], "cannot be printed"),
        *[(o, v, "True or False") for o in ("pooled", "exact_eval", "checkpoint_states") for v in NOT_FLAGS],
        *[("on_empty", v, "'skip', 'nan', 'raise'") for v in ("warn", "", "Skip", None, True, ["skip"])],
        *[("on_error", v, "'raise', 'warn'") for v in ("skip", "nan", "", None, False, ["raise"])],
        *[("metric_dtype", v, "floating-point torch.dtype") for v in (torch.int64, torch.complex64, "int64", "nn")],
        *[("metric_dtype", v, "floating-point torch.dtype") for v in ("float99", "", None, 32, float)],
    ],
    ids=repr,
)
def test_every_wrong_value_is_an_error_that_says_what_was_expected(option, value, expected):
    """The error names the option, what was expected, and the value that came, and is a ValueError too."""
    with pytest.raises(OptionError) as caught:
        MetricLogging(**{option: value})
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert message.startswith(f"MetricLogging({option}=")
    assert expected in message
    inner = value["acc"] if option == "class_names" and isinstance(value, dict) and "acc" in value else value
    assert repr(inner) in message or repr(list(value)) in message
    assert type(inner).__name__ in message or type(list(value)).__name__ in message


def test_an_unknown_option_is_refused():
    """A misspelt option is a TypeError that names it, not a setting without effect."""
    with pytest.raises(TypeError, match="progbar"):
        MetricLogging(progbar=())


def test_options_are_frozen_and_checked_again_when_replaced():
    """Options cannot be changed in place; a copy with another value is checked like a new object."""
    options = MetricLogging(metric_dtype="float64", prog_bar=["a"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.pooled = True
    changed = dataclasses.replace(options, pooled=True)
    assert (changed.pooled, changed.metric_dtype, changed.prog_bar) == (True, torch.float64, ("a",))
    with pytest.raises(OptionError, match="pooled"):
        dataclasses.replace(options, pooled="yes")


def test_an_option_may_be_set_to_the_value_that_it_has():
    """Whoever copies a dataclass field by field, as Lightning does with hyperparameters, changes nothing and may."""
    options = MetricLogging(class_names=["a"], track_best={"val/acc": "max"}, metric_dtype="float64")
    before = copy.deepcopy(options)
    for field in dataclasses.fields(options):
        setattr(options, field.name, copy.deepcopy(getattr(before, field.name)))
    assert options == before
    with pytest.raises(dataclasses.FrozenInstanceError, match="class_names"):
        options.class_names = ("b",)
    with pytest.raises(dataclasses.FrozenInstanceError, match="other"):
        options.other = 1
    with pytest.raises(dataclasses.FrozenInstanceError, match="pooled"):
        del options.pooled


def test_options_do_not_share_or_keep_the_given_containers():
    """A list or mapping that is changed afterwards does not change the options."""
    bar, best, names = ["a"], {"val/acc": "max"}, {"acc": ["x"]}
    options = MetricLogging(prog_bar=bar, track_best=best, class_names=names)
    bar.append("b")
    best["val/f1"] = "min"
    names["acc"].append("y")
    assert options.prog_bar == ("a",)
    assert options.track_best == {"val/acc": "max"}
    assert options.class_names == {"acc": ("x",)}
    assert MetricLogging().track_best is not MetricLogging().track_best


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o)), lambda o: _saved(o)],
    ids=["deepcopy", "pickle", "checkpoint"],
)
def test_options_survive_a_copy(again):
    """Options survive deepcopy, pickle, and a checkpoint that is loaded with ``weights_only=True``."""
    options = MetricLogging(class_names={"acc": ["a", "b"]}, track_best={"val/acc": "max"}, metric_dtype="bfloat16")
    assert again(options) == options


def _saved(options):
    file = io.BytesIO()
    torch.save({"hyper_parameters": {"logging": options}}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["hyper_parameters"]["logging"]


@pytest.mark.parametrize(
    ("pattern", "candidates", "matched"),
    [
        ("*/acc", ["val/acc"], True),
        ("*/cat", ["val/acc/cat"], True),
        ("acc", ["val/acc"], False),
        ("acc", ["val/acc", "acc"], True),
        ("ACC", ["acc"], False),
        ("a?c", ["abc"], True),
        ("[ab]cc", ["bcc"], True),
        ("", [], False),
    ],
    ids=["star", "star-crosses-slash", "whole", "any", "case", "one-character", "set", "nothing"],
)
def test_a_pattern_is_a_glob_over_all_forms_of_a_name(pattern, candidates, matched):
    """A pattern matches a whole form of a name; ``*`` crosses slashes and case counts on every system."""
    assert matches(pattern, *candidates) is matched


@given(st.lists(st.text(min_size=1, max_size=5), max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_sequence_of_strings_makes_the_same_options(patterns):
    """A list and a tuple of the same patterns are the same options."""
    assert MetricLogging(figures=patterns) == MetricLogging(figures=tuple(patterns))
