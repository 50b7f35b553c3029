"""Which keys a pattern matches: as ``fnmatch`` has it for each form of a name, however it is found."""

from fnmatch import fnmatchcase

from hypothesis import given, settings
from hypothesis import strategies as st

from metric_mixin._keys import Entry
from metric_mixin._patterns import matched_keys

PARTS = st.sampled_from(["a", "b", "ab", "a/b", "loss", "1", "[a]", "a]", "b*"])
ENTRIES = st.tuples(PARTS, st.sampled_from(["", "/x", "/loss"]), st.none() | PARTS)
PATTERNS = st.lists(st.text("ab/*?[]!1-", min_size=1, max_size=6) | PARTS | st.just("*/loss"), max_size=3)
KEYS = st.sampled_from(["{stage}/{name}", "{name}", "{name}.{stage}", "my {stage} b*", "{stage}-{name}]"])


@given(st.lists(ENTRIES, max_size=6), PATTERNS, KEYS)
@settings(deadline=None, max_examples=400)
def test_the_keys_are_those_of_which_some_form_matches(entries, patterns, form):
    """Metric, path and name, each with and without the stage, and the key."""
    keyed, wanted = {}, set()
    for metric, below, label in entries:
        path = metric + below
        name = path if label is None else f"{path}/{label}"
        key = form.format(stage="val", name=name)
        keyed[key] = Entry(metric, path, label, None)
    for key, (metric, path, label, *_) in keyed.items():
        names = (metric, path, path if label is None else f"{path}/{label}")
        forms = [*names, *(f"val/{one}" for one in names), key]
        if any(fnmatchcase(one, pattern) for one in forms for pattern in patterns):
            wanted.add(key)
    assert matched_keys(patterns, "val", keyed) == wanted
