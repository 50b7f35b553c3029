"""Patterns of the options -> the keys and names that they match; said, where one that the user set matches nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from metric_mixin._errors import closest
from metric_mixin._keys import Entry
from metric_mixin._names import RESERVED
from metric_mixin._options import MetricLogging, matches, options_of
from metric_mixin._record import Keyed
from metric_mixin._types import STAGES, Stage


def matched_keys(patterns: Sequence[str], stage: Stage, keyed: Keyed) -> set[str]:
    """Return the keys whose entry one of ``patterns`` matches.

    Of thousands of keys most end in another way than a pattern does, which is seen faster than that it does not match.
    """
    found: set[str] = set()
    for pattern in patterns:
        of_path: dict[tuple[str, str], bool] = {}
        end = _NOT_LITERAL.split(pattern)[-1]
        for key, entry in keyed.items():
            metric, path, label = entry[:3]
            if (matched := of_path.get((metric, path))) is None:
                forms = (metric, path, f"{stage}/{metric}", f"{stage}/{path}")
                matched = of_path[metric, path] = matches(pattern, *forms)
            if not matched and (key.endswith(end) or (label is not None and f"{stage}/{path}/{label}".endswith(end))):
                matched = is_matched((pattern,), stage, key, entry)
            if matched:
                found.add(key)
    return found


_NOT_LITERAL = re.compile(r"[*?\]]")
"""The signs of a pattern behind the last of which it stands for itself."""


def is_matched(patterns: Sequence[str], stage: Stage, key: str, entry: Entry) -> bool:
    """Whether one of ``patterns`` matches an entry: its metric, its name, these with the stage, or its key."""
    return any(matches(pattern, *_forms(stage, key, entry)) for pattern in patterns)


def check_patterns(module: Any) -> None:
    """Say which patterns that the user set match nothing that is declared, with the closest names."""
    options, recorder = options_of(module), module._metric_recorder
    stages = recorder.stages
    metrics = {name for record in stages.values() for name in record.metrics.names()}
    unbuilt = [stage for stage in STAGES if stage not in stages]
    forms = _all_forms(module, metrics, unbuilt)
    class_names = options.class_names if isinstance(options.class_names, dict) else ()
    wanted = {"prog_bar": options.prog_bar, "figures": options.figures, "class_names": class_names}
    wanted["track_best"] = tuple(options.track_best)
    for option, patterns in wanted.items():
        for pattern in patterns if patterns != MetricLogging.default(option) else ():
            below = any(pattern.startswith((f"{m}/", *(f"{s}/{m}/" for s in STAGES))) for m in metrics)
            later = len(unbuilt) > 1 and not pattern.startswith(tuple(f"{s}/" for s in stages))
            if not below and not later and not any(matches(pattern, form) for form in forms):
                recorder.say(
                    f"{option} {pattern}",
                    f"MetricLogging({option}=...): the pattern {pattern!r} matches no metric; the closest: "
                    f"{closest(pattern, sorted(forms))}.",
                )


def _all_forms(module: Any, metrics: set[str], unbuilt: Sequence[Stage]) -> set[str]:
    """Every form of a name that a pattern may match, those of stages that are not built yet included."""
    forms: set[str] = set()
    for stage, record in module._metric_recorder.stages.items():
        forms |= {form for key, entry in record.known().items() for form in _forms(stage, key, entry)}
        for name in (RESERVED, f"{RESERVED}_step", *record.metrics.names()):
            forms |= {name, f"{stage}/{name}", module.metric_key(stage, name, None)}
    for stage in unbuilt:
        forms |= {form for name in metrics for form in (f"{stage}/{name}", module.metric_key(stage, name, None))}
    return forms


def _forms(stage: Stage, key: str, entry: Entry) -> tuple[str, ...]:
    names = dict.fromkeys((entry.metric, entry.path, entry.name))
    return (*names, *(f"{stage}/{name}" for name in names), key)
