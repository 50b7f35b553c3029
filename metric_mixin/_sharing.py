"""Which metric of a group is updated, and how the others come to its state, by reference or as copies.

The first metric of each group leads: it alone is updated. The others get its state when they are looked at. A metric
that is handed out gets a copy, since whoever has it may update or reset it by itself; that is seen by its number of
updates, and the metric then leaves its group until the next reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from metric_mixin._groups import keeper

Member = Callable[[str], Metric]


class Sharing:
    """The groups of a collection and whether their members have the state of the first."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self._after_reset: list[list[str]] = []
        self._stale = False
        self._handed_out = False
        self._counts: dict[str, int] = {}

    def set_groups(self, metrics: Mapping[str, Metric], groups: list[list[str]], *, changed: str, fed: bool) -> None:
        """Take new groups, ``changed`` being new or gone: at once where nothing has rows, else with the next reset."""
        self._after_reset = [list(group) for group in groups]
        if fed:
            known = [[name for name in group if name in metrics and name != changed] for group in self.groups]
            new = [[name] for name in metrics if not any(name in group for group in known)]
            self.groups = [group for group in known if group] + new
        else:
            self.groups = []
            for group in self._after_reset:
                fresh = [name for name in group if keeper(metrics[name])._update_count == 0]
                self.groups += [fresh] if fresh else []
                self.groups += [[name] for name in group if name not in fresh]
        self._forget()

    def leaders(self, names: Collection[str], member: Member) -> Iterator[str]:
        """Yield the metric to update of each group that has one of ``names``; groups are split where needed first."""
        self._split_changed(member)
        wanted = set(names)
        if any(0 < sum(name in wanted for name in group) < len(group) for group in self.groups):
            self.part(names, member)
        self._stale = True
        return (group[0] for group in self.groups if group[0] in wanted)

    def part(self, names: Collection[str], member: Member) -> None:
        """Make each of ``names`` stand alone until the next reset."""
        self._split_changed(member)
        self.show(member, copy=True)
        rest = [[name for name in group if name not in names] for group in self.groups]
        self.groups = [group for group in rest if group] + [[name] for name in names]
        self._forget()

    def show(self, member: Member, *, copy: bool) -> None:
        """Give every metric the state of the first of its group."""
        copy = copy or self._handed_out
        if not self._stale and not (copy and not self._counts):
            return
        for first, *others in self.groups:
            lead = keeper(member(first))
            for other in others:
                follower = keeper(member(other))
                for state in lead._defaults:
                    value = getattr(lead, state)
                    setattr(follower, state, _copied(value) if copy else value)
                follower._update_count = lead._update_count
                if self._stale:
                    follower._computed = None
        self._stale = False
        if copy:
            self._handed_out = True
            self._counts = {name: keeper(member(name))._update_count for group in self.groups for name in group}

    def reset(self) -> None:
        """All metrics were reset: they stand in their groups again."""
        self.groups = [list(group) for group in self._after_reset]
        self._forget()

    def _split_changed(self, member: Member) -> None:
        """Let metrics go that were updated or reset by themselves since they were handed out."""
        if not self._counts:
            return
        groups: list[list[str]] = []
        for group in self.groups:
            same = [name for name in group if keeper(member(name))._update_count == self._counts[name]]
            groups += [same] if same else []
            groups += [[name] for name in group if name not in same]
        self.groups = groups
        self._counts = {}

    def _forget(self) -> None:
        self._stale = False
        self._counts = {}


def _copied(value: Any) -> Any:
    """A state that can be changed in place by itself: of a list, whose tensors are never changed, a new list."""
    return value.clone() if isinstance(value, Tensor) else list(value)
