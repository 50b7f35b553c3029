"""The stages."""

import pytest

from metric_mixin import StageError
from metric_mixin._types import STAGES, as_stage


def test_there_are_three_stages_in_order():
    """Stages are train, val and test, and each is returned as it is."""
    assert STAGES == ("train", "val", "test")
    assert [as_stage(stage) for stage in ("train", "val", "test")] == ["train", "val", "test"]


@pytest.mark.parametrize("value", ["validate", "Train", "", None, 3, ["train"]], ids=repr)
def test_an_unknown_stage_is_an_error_that_names_it_and_the_three(value):
    """The error says what came and which stages exist."""
    with pytest.raises(StageError) as caught:
        as_stage(value)
    assert f"Unknown stage {value!r}" in str(caught.value)
    assert "'train', 'val', 'test'" in str(caught.value)
