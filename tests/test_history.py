"""The course of a value over the epochs of a run."""

from metric_mixin._history import History


def test_a_value_is_kept_once_an_epoch():
    """Of several validations in one epoch the last value stays, so that nothing grows within an epoch."""
    history = History()
    for epoch, value in [(0, 0.1), (0, 0.2), (2, 0.3)]:
        history.note("run", epoch, {"val/acc": value})
    assert history.of("val/acc") == {0: 0.2, 2: 0.3}


def test_another_run_begins_anew():
    """A second fit starts at its first epoch; nothing of the one before is drawn."""
    history = History()
    history.note("one", 0, {"val/acc": 0.1, "val/f1": 0.1})
    history.note("two", 5, {"val/acc": 0.2})
    assert history.of("val/acc") == {5: 0.2}
