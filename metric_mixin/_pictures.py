"""An epoch's values -> pictures of what ``figures`` asks for -> each logger in its own way, or a PNG file.

A logger is recognised by its methods or its experiment's, so that none is imported. Whatever fails is said once and
ends nothing. Nothing here needs another process than the first, which alone draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from torchmetrics.classification import BinaryConfusionMatrix

from metric_mixin._errors import MissingDependencyError
from metric_mixin._figures import draw, draw_history
from metric_mixin._options import options_of
from metric_mixin._paths import folder_of
from metric_mixin._patterns import matched_keys
from metric_mixin._record import Keyed
from metric_mixin._trainer import is_fitting
from metric_mixin._types import Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    for key, is_scalar, drawing in _drawings(module, stage, wanted, values):
        try:
            figure = drawing()
        except MissingDependencyError as error:
            recorder.say("matplotlib", str(error))
            return
        except Exception as error:
            recorder.say(f"figure {key}", f"Drawing {key!r} failed: {type(error).__name__}: {error}")
            continue
        folder = PurePosixPath("figures") / folder_of(key, recorder.folders)
        for taker, failure in hand_out(trainer, key, figure, step, folder, is_scalar=is_scalar):
            recorder.say(
                f"picture {taker}",
                f"The picture of {key!r} could not be given to {taker}: {type(failure).__name__}: {failure}",
            )


def _drawings(
    module: Any, stage: Stage, wanted: Keyed, values: dict[str, Any]
) -> Iterator[tuple[str, bool, Callable[[], Figure]]]:
    """Each picture's key, whether a scalar is logged under that too, and what draws it."""
    recorder = module._metric_recorder
    metrics = dict(recorder.stages[stage].metrics.items(copy_state=False))
    lines: dict[str, dict[str | None, dict[int, float]]] = {}
    for key, entry in wanted.items():
        value = values[key]
        if entry.is_scalar:
            shared = key if entry.label is None else module.metric_key(stage, entry.path, entry.loader)
            lines.setdefault(shared, {})[entry.label] = recorder.history.of(key)
        elif entry.path == entry.metric:
            metric = metrics[entry.metric]
            yield key, False, partial(draw, metric, value, key, _axis_names(module, stage, entry.metric, metric))
        elif getattr(value, "ndim", 0) == 2:  # of the parts of a dict, which no `plot` draws, the matrices
            yield key, False, partial(draw, None, value, key)
    for key, of_label in lines.items():
        yield key, key in wanted, partial(draw_history, of_label, key)


def _axis_names(module: Any, stage: Stage, name: str, metric: Any) -> Any:
    """Names of the classes for the axes, where the options or the datamodule name as many as the metric has."""
    binary = 2 if isinstance(metric, BinaryConfusionMatrix) else None
    count = getattr(metric, "num_classes", getattr(metric, "num_labels", binary))
    names = module._metric_recorder.class_names.for_metric(module, stage, name)
    return names if names is not None and len(names) == count else None


def hand_out(
    trainer: Any, key: str, figure: Figure, step: int, folder: PurePosixPath, *, is_scalar: bool = False
) -> Iterator[tuple[str, Exception]]:
    """Give a picture to each logger; where one takes none, or there is none, to a PNG file. Yield who failed, and why.

    Args:
        trainer: The Trainer; under its ``fast_dev_run`` nothing is written.
        key: Key of the picture.
        figure: The picture.
        step: The step under which the epoch's scalars are logged.
        folder: Folder for ``STEP.png``, below the log folder or among the artifacts.
        is_scalar: Whether a scalar is logged under this key.
    """
    if trainer.fast_dev_run:
        return
    file = folder / f"{step}.png"
    left = not trainer.loggers
    for logger in trainer.loggers:
        try:
            left |= not _taken(logger, key, figure, step, file, is_scalar)
        except Exception as error:  # noqa: PERF203 - each logger by itself
            yield type(logger).__name__, error
    if left:
        path = log_folder(trainer) / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        except OSError as error:
            yield str(path.parent), error


def _taken(logger: Any, key: str, figure: Figure, step: int, file: PurePosixPath, is_scalar: bool) -> bool:
    """Give a picture to a logger that takes one; whether it does."""
    if hasattr(logger, "log_image"):  # W&B, where an image under a scalar's key would take its place
        logger.log_image(f"{key}_history" if is_scalar else key, [figure], step)
    elif hasattr(logger.experiment, "add_figure"):  # TensorBoard
        logger.experiment.add_figure(key, figure, global_step=step, close=False)
    elif hasattr(logger.experiment, "log_figure") and hasattr(logger, "run_id"):  # MLflow
        logger.experiment.log_figure(logger.run_id, figure, str(file))
    else:
        return False
    return True


def log_folder(trainer: Any) -> Path:
    """The folder of the first logger that has one, otherwise the trainer's root; asks no other process."""
    for logger in trainer.loggers:
        if folder := getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None):
            return Path(folder)
    return Path(trainer.default_root_dir)
