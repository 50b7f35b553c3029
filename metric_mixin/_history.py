"""Values of an epoch -> their course over the epochs of a run, for pictures; one float a key and epoch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping


class History:
    """What the keys that ``figures`` asks for have been in this run; it begins anew with each run of the Trainer."""

    def __init__(self) -> None:
        self._run: Hashable = None
        self._values: dict[str, dict[int, float]] = {}

    def note(self, run: Hashable, epoch: int, values: Mapping[str, float]) -> None:
        """Take note of an epoch's values; of an epoch with several, the last ones stay."""
        if run != self._run:
            self._run, self._values = run, {}
        for key, value in values.items():
            self._values.setdefault(key, {})[epoch] = value

    def of(self, key: str) -> dict[int, float]:
        """Return the value of a key by epoch."""
        return self._values[key]
