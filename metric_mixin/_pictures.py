"""An epoch's values -> pictures of what ``figures`` asks for -> each logger in its own way, or a PNG file.

A logger is recognised by its methods or its experiment's, so that none is imported. Whatever fails is said once and
ends nothing. Nothing here needs another process than the first, which alone draws.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # torch and Lightning both need fsspec
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryConfusionMatrix
from torchmetrics.wrappers import MultitaskWrapper, Running
from torchmetrics.wrappers.transformations import MetricInputTransformer

from metric_mixin._errors import MissingDependencyError, listed
from metric_mixin._figures import draw, draw_history
from metric_mixin._fit import fonts, lacking
from metric_mixin._keys import Entry
from metric_mixin._layout import inner_metric
from metric_mixin._options import options_of
from metric_mixin._paths import folder_of
from metric_mixin._patterns import matched_keys
from metric_mixin._record import Keyed
from metric_mixin._trainer import is_fitting
from metric_mixin._types import Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Picture(NamedTuple):
    """A picture to draw.

    Attributes:
        key: Its key.
        draw: What draws it, and returns the names in it as well.
        whole: Where the value is kept whole, if it is an array.
    """

    key: str
    draw: Callable[[], tuple[Figure, Sequence[str]]]
    whole: str = ""


def show(module: Any, trainer: Any, stage: Stage, keyed: Keyed, values: dict[str, Any], step: int) -> None:
    """Draw what ``figures`` asks for and hand it out: arrays as they are, scalars over the epochs of this run."""
    options, recorder = options_of(module), module._metric_recorder
    if trainer.barebones or not trainer.is_global_zero:
        return
    matched = matched_keys(options.figures, stage, keyed)
    wanted = {key: entry for key, entry in keyed.items() if key in matched} if matched else {}
    scalars = {key: float(values[key]) for key, entry in wanted.items() if entry.is_scalar}
    recorder.history.note((id(trainer), recorder.runs), trainer.current_epoch, scalars)
    if is_fitting(trainer) and (trainer.current_epoch + 1) % options.figures_every_n_epochs:
        return
    pictures = list(_pictures(module, stage, wanted, values))
    beside_scalars = _keys_beside(_logged(recorder, keyed), [picture.key for picture in pictures])
    for picture in pictures:
        key = picture.key
        try:
            figure, names = picture.draw()
            lacks = _about_lacking([key, *names])
        except MissingDependencyError as error:
            recorder.say("matplotlib", str(error))
            return
        except Exception as error:
            recorder.say(f"figure {key}", f"Drawing {key!r} failed: {_words(error)}{picture.whole}")
            continue
        if lacks is not None:
            recorder.say("font", lacks)
        folder = PurePosixPath("figures") / folder_of(key, recorder.folders)
        for taker, failure in hand_out(trainer, key, figure, step, folder, beside_scalars=beside_scalars[key]):
            recorder.say(
                f"picture {taker}",
                f"The picture of {key!r} could not be given to {taker}: {_words(failure)}",
            )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).rstrip('.')}"


def _pictures(module: Any, stage: Stage, wanted: Keyed, values: dict[str, Any]) -> Iterator[_Picture]:
    recorder = module._metric_recorder
    metrics = dict(recorder.stages[stage].metrics.items(copy_state=False))
    lines: dict[str, dict[str | None, dict[int, float]]] = {}
    for key, entry in wanted.items():
        if entry.is_scalar:
            shared = key if entry.label is None else module.metric_key(stage, entry.path, entry.loader)
            lines.setdefault(shared, {})[entry.label] = recorder.history.of(key)
        else:
            metric = _computed_by(metrics[entry.metric], entry.metric, entry.path)
            whole = f". It is kept whole in `metric_results[{stage!r}]`."
            yield _Picture(key, partial(_array, module, stage, key, entry, metric, values[key]), whole)
    for key, of_label in lines.items():
        yield _Picture(key, partial(_lines, key, of_label))


def _array(
    module: Any, stage: Stage, key: str, entry: Entry, metric: Metric | None, value: Any
) -> tuple[Figure, Sequence[str]]:
    names = _axis_names(module, stage, entry, metric)
    return draw(metric, value, key, names), names or ()


def _lines(key: str, of_label: dict[str | None, dict[int, float]]) -> tuple[Figure, Sequence[str]]:
    return draw_history(of_label, key), [label for label in of_label if label is not None]


def _computed_by(metric: Any, path: str, wanted: str) -> Metric | None:
    """The metric whose ``compute`` returned the part at ``wanted`` of what ``metric``, at ``path``, returned."""
    while isinstance(metric, Running | MetricInputTransformer):
        metric = inner_metric(metric)
    if path == wanted:
        return metric if isinstance(metric, Metric) else None
    members = metric.items(flatten=False) if isinstance(metric, MultitaskWrapper) else ()
    for name, member in metric.items() if isinstance(metric, MetricCollection) else members:
        if f"{wanted}/".startswith(f"{path}/{name}/"):
            return _computed_by(member, f"{path}/{name}", wanted)
    return None


def _axis_names(module: Any, stage: Stage, entry: Entry, metric: Metric | None) -> Sequence[str] | None:
    """Names of the classes for the axes, where there are as many as the metric has; of a part as in its keys."""
    recorder = module._metric_recorder
    names: Sequence[str] | None
    count = getattr(metric, "num_classes", getattr(metric, "num_labels", None))
    if entry.path == entry.metric:
        names = recorder.class_names.for_metric(module, stage, entry.metric)
    else:
        names = recorder.class_names.of(module, stage, entry.metric, recorder.stages[stage].layouts[entry.metric])
    if names is None or len(names) == (2 if isinstance(metric, BinaryConfusionMatrix) else count):
        return names
    if count is not None:
        recorder.say(
            f"names {entry.path}",
            f"Metric {entry.path!r} has {count} classes, but `class_names` gives it {len(names)}: {listed(names)}. Its "
            "pictures have none; `MetricLogging(class_names={pattern: names})` gives each metric its own.",
        )
    return None


def _logged(recorder: Any, keyed: Keyed) -> set[str]:
    """Every key under which a scalar is logged, as far as that is known."""
    known = [keyed, *(record.known() for record in recorder.stages.values())]
    scalars = {key for entries in known for key, entry in entries.items() if entry.is_scalar}
    return scalars | set(recorder.user_keys) | {recorder.step_key}


def _keys_beside(logged: set[str], keys: Sequence[str]) -> dict[str, str]:
    """Picture's key to the one where no scalar is: its own, or the first ``KEY_history`` that nothing else has."""
    taken, result = logged | set(keys), {}
    for key in keys:
        free = key
        while key in logged and free in taken:
            free += "_history"
        taken.add(free)
        result[key] = free
    return result


def _about_lacking(texts: Sequence[str]) -> str | None:
    """Say of the first text that has such signs which ones the font of pictures lacks."""
    for text in texts:
        if signs := lacking(text):
            return (
                f"The font of pictures ({fonts()}) lacks {signs!r} in {text!r}: such signs are written as their code. "
                "Name a font that has them in `matplotlib.rcParams['font.family']`, which takes a list."
            )
    return None


def hand_out(
    trainer: Any, key: str, figure: Figure, step: int, folder: PurePosixPath, *, beside_scalars: str | None = None
) -> Iterator[tuple[str, Exception]]:
    """Give a picture to each logger; where one takes none, or there is none, to a PNG file. Yield who failed, and why.

    Args:
        trainer: The Trainer; under its ``fast_dev_run`` nothing is written.
        key: Key of the picture.
        figure: The picture.
        step: The step under which the epoch's scalars are logged.
        folder: Folder for ``STEP.png``, below the log folder or among the artifacts.
        beside_scalars: The key for a logger where an image under a scalar's key would take its place.
    """
    if trainer.fast_dev_run:
        return
    file = folder / f"{step}.png"
    left = not trainer.loggers
    for logger in trainer.loggers:
        try:
            left |= not _taken(logger, key, figure, step, file, beside_scalars or key)
        except Exception as error:  # noqa: PERF203 - each logger by itself
            yield type(logger).__name__, error
    if left:
        root = log_folder(trainer)
        try:
            _write(figure, posixpath.join(root, file))
        except Exception as error:
            yield posixpath.join(root, folder.parts[0]), error


def _write(figure: Figure, path: str) -> None:
    """Write a picture on whatever file system its path is of; nothing, where it cannot be rendered."""
    png = BytesIO()
    figure.savefig(png, format="png")
    files, place = url_to_fs(path) if "://" in path else (LocalFileSystem(), path)  # "a::b" is a folder's name there
    files.makedirs(posixpath.dirname(place), exist_ok=True)
    files.pipe_file(place, png.getvalue())


def _taken(logger: Any, key: str, figure: Figure, step: int, file: PurePosixPath, beside_scalars: str) -> bool:
    """Give a picture to a logger that takes one; whether it does."""
    if hasattr(logger, "log_image"):  # W&B, where an image under a scalar's key would take its place
        logger.log_image(beside_scalars, [figure], step)
    elif hasattr(logger.experiment, "add_figure"):  # TensorBoard
        logger.experiment.add_figure(key, figure, global_step=step, close=False)
    elif hasattr(logger.experiment, "log_figure") and hasattr(logger, "run_id"):  # MLflow
        logger.experiment.log_figure(logger.run_id, figure, str(file))
    else:
        return False
    return True


def log_folder(trainer: Any) -> str:
    """The folder of the first logger that has one, otherwise the trainer's root; asks no other process."""
    for logger in trainer.loggers:
        if folder := getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None):
            return str(folder)
    return str(trainer.default_root_dir)
