"""Which metric of a group is updated, and how the others come to its state, by reference or as copies.

The first metric of each group leads: it alone is updated. The others get its state when they are looked at. Once a
metric was handed out, whoever has it may update or reset it at any time: from then on each has a state of its own,
copied after each update, and one whose states are not those that it was given leaves its group until the next reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from metric_mixin._errors import UpdateError
from metric_mixin._groups import keeper

Member = Callable[[str], Metric]


class Sharing:
    """The groups of a collection and whether their members have the state of the first.

    Attributes:
        groups: Names in groups; the first of each is the one that is updated.
        handed_out: Whether a metric was handed out, so that each has a state of its own at all times.
    """

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self._after_reset: list[list[str]] = []
        self._stale = False
        self.handed_out = False
        self._counts: dict[str, int] = {}  # name -> updates of a metric that was not handed out, as far as we know
        self._states: dict[str, tuple[Any, ...]] = {}  # name -> what its states were when it was handed out

    def set_groups(self, metrics: Mapping[str, Metric], groups: list[list[str]], *, changed: str, fed: bool) -> None:
        """Take new groups, ``changed`` being new or gone: at once where nothing has rows, else with the next reset.

        ``settle`` was called before the change.
        """
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
        self._counts = {name: keeper(metric)._update_count for name, metric in metrics.items()}
        self._note_states(metrics.__getitem__)

    def leaders(self, names: Collection[str], member: Member) -> list[str]:
        """Return the metric to update of each group that has one of ``names``; groups are split where needed first."""
        self._split_changed(member)
        self._check_owned(member)
        wanted = set(names)
        if any(0 < sum(name in wanted for name in group) < len(group) for group in self.groups):
            self.part(names, member)
        self._stale = True
        return [group[0] for group in self.groups if group[0] in wanted]

    def updated(self, leaders: Collection[str], member: Member) -> None:
        """Take note of an update of ``leaders``, be it that some refused their inputs."""
        for name in leaders:
            self._counts[name] = keeper(member(name))._update_count
        if self.handed_out:
            self.show(member, copy=True)

    def part(self, names: Collection[str], member: Member) -> None:
        """Make each of ``names`` stand alone until the next reset."""
        self.settle(member)
        rest = [[name for name in group if name not in names] for group in self.groups]
        self.groups = [group for group in rest if group] + [[name] for name in names]
        self._note_states(member)

    def settle(self, member: Member) -> None:
        """Give every metric a state of its own, before groups change."""
        self._split_changed(member)
        self._copy(member, copy=True)

    def show(self, member: Member, *, copy: bool) -> None:
        """Give every metric the state of the first of its group; ``copy`` where metrics are handed out."""
        if self.handed_out and not self._stale:
            return
        self._check_owned(member)
        copy = copy or self.handed_out
        if copy or self._stale:
            self._copy(member, copy=copy)
        if copy:
            self.handed_out = True
            self._note_states(member)

    def units(self, named: Callable[[str], tuple[str, Metric]]) -> list[Mapping[str, Metric]]:
        """Return the groups as metrics by name; every metric has the state of its group."""
        return [dict(named(name) for name in group) for group in self.groups]

    def reset(self, member: Member) -> None:
        """All metrics were reset: they stand in their groups again."""
        self.groups = [list(group) for group in self._after_reset]
        self._stale = False
        self._counts = {}
        self._note_states(member)

    def _copy(self, member: Member, *, copy: bool) -> None:
        for first, *others in self.groups:
            lead = keeper(member(first))
            for other in others:
                follower = keeper(member(other))
                for state in lead._defaults:
                    value = getattr(lead, state)
                    setattr(follower, state, _copied(value) if copy else value)
                follower._update_count = self._counts[other] = lead._update_count
                if self._stale:
                    follower._computed = None
        self._stale = False

    def _check_owned(self, member: Member) -> None:
        """Raise where a metric of a group that was never handed out was updated or reset by itself.

        Others may share its very state by then, so what they have seen can no longer be told apart.
        """
        if self.handed_out:
            return
        for group in self.groups:
            for name in group if len(group) > 1 else ():
                if keeper(member(name))._update_count != self._counts.get(name, 0):
                    raise UpdateError(
                        f"Metric {name!r} ({type(member(name)).__name__}) was updated or reset by itself, though it "
                        f"shares its state with {', '.join(repr(other) for other in group if other != name)}. Get it "
                        f"by its name, e.g. `val_metrics[{name!r}]`, to use it by itself, or declare a fresh object."
                    )

    def _split_changed(self, member: Member) -> None:
        """Let metrics go that were updated or reset by themselves since they were handed out."""
        if not self.handed_out:
            return
        groups: list[list[str]] = []
        for group in self.groups:
            same = [name for name in group if _same(_states_of(member(name)), self._states[name])]
            groups += [same] if same else []
            groups += [[name] for name in group if name not in same]
        self.groups = groups

    def _note_states(self, member: Member) -> None:
        if self.handed_out:
            self._states = {name: _states_of(member(name)) for group in self.groups for name in group}


def _copied(value: Any) -> Any:
    """A state that can be changed in place by itself: of a list, whose tensors are never changed, a new list."""
    with torch.inference_mode(False):
        return value.clone() if isinstance(value, Tensor) else list(value)


def _states_of(metric: Metric) -> tuple[Any, ...]:
    """The very objects that are a metric's states, with their versions, which change in place; kept, not copied."""
    kept = keeper(metric)
    states: list[Any] = [kept._update_count]
    for name in kept._defaults:
        value = getattr(kept, name)
        if isinstance(value, Tensor):
            states += [value, None if value.is_inference() else value._version]
        else:
            states += value
    return tuple(states)


def _same(states: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(states) == len(others) and all(
        one is other if isinstance(one, Tensor) else one == other for one, other in zip(states, others, strict=True)
    )
