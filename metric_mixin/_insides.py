"""Private names of torchmetrics for which there is no other way -> an error where one is gone; looked at once.

Most of them are written or overridden: without the check a version of torchmetrics that calls them otherwise would not
fail, it would give stale values. ``docs/private-api.md`` lists them, with the versions that were read.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torchmetrics
from torchmetrics import Metric, MetricCollection, SumMetric
from torchmetrics.wrappers import Running

from metric_mixin._errors import MissingDependencyError

NEEDED: dict[type, tuple[str, ...]] = {
    Metric: ("_computed", "_defaults", "_filter_kwargs", "_reductions", "_sync_dist", "_update_count"),
    MetricCollection: (
        "_compute_groups_create_state_ref",
        "_enable_compute_groups",
        "_groups",
        "_groups_checked",
        "_set_name",
    ),
    Running: ("_num_vals_seen",),
}
"""By class: what a fresh object of it has. Names of nn.Module, which never changed, are not among them."""


@cache
def check_insides() -> None:
    """Raise ``MissingDependencyError`` where the installed torchmetrics lacks one of the names."""
    fresh: dict[type, Any] = {
        Metric: SumMetric(),
        MetricCollection: MetricCollection([]),
        Running: Running(SumMetric(), 1),
    }
    for cls, names in NEEDED.items():
        for name in names:
            if not hasattr(fresh[cls], name):
                raise MissingDependencyError(
                    f"torchmetrics {torchmetrics.__version__} keeps what a {cls.__name__} has accumulated otherwise "
                    f"than the versions that metric_mixin knows (1.7 to 1.9): `{cls.__name__}.{name}` is gone. Install "
                    "an earlier torchmetrics, or a newer metric_mixin."
                )
