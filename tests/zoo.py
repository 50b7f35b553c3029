"""Every modular metric of torchmetrics, as data: how it is made, what it is fed, and which keys it gives.

``python -m tests.zoo`` writes ``docs/zoo.md`` from these rows. ``tests/test_zoo.py`` runs each through a Trainer.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one ``update``."""

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
CLASSES = 3
SIZES = (7, 5, 4, 2)
"""Rows of each batch: uneven, and at least two on each rank, however the batches are dealt out to two or four."""


@dataclass(frozen=True)
class Make:
    """How an object is made: a class by its place below ``torchmetrics`` (or a function of this file), and arguments.

    Arguments may be, or hold in lists and dicts, further recipes.
    """

    path: str
    args: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def cls(self) -> Callable[..., Any]:
        module, _, name = self.path.rpartition(".")
        return getattr(import_module(f"torchmetrics.{module}"), name) if module else globals()[name]

    def __call__(self) -> Any:
        """Make a new object."""
        return self.cls(*map(_made, self.args), **{name: _made(value) for name, value in self.settings.items()})

    def __str__(self) -> str:
        given = [_shown(value) for value in self.args]
        return f"{self.name}({', '.join(given + [f'{name}={_shown(v)}' for name, v in self.settings.items()])})"


def _made(value: Any) -> Any:
    if isinstance(value, Make):
        return value()
    if isinstance(value, list):
        return [_made(part) for part in value]
    return {key: _made(part) for key, part in value.items()} if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    if isinstance(value, Make):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_shown(part)}' for key, part in value.items())}}}"
    return value.__name__ if callable(value) else repr(value)


def make(path: str, *args: Any, **settings: Any) -> Make:
    """Write down how an object is made."""
    return Make(path, args, settings)


@dataclass(frozen=True)
class Row:
    """One metric with its settings, what it is fed, and what it gives, all written by hand.

    Args:
        make: How it is made.
        feed: What it is fed: a name in ``FEEDS``.
        keys: What follows the metric's name in each key that is logged, in the order of the value.
        whole: The same for what is kept whole. Everything else in the value is logged.
        late: Those of ``keys`` that class and settings do not tell.
        needs: Packages that it imports.
    """

    make: Make
    feed: str
    keys: tuple[str, ...] = ("",)
    whole: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return re.sub(r"[^\w.]+", "-", str(self.make)).strip("-")

    def batches(self, seed: int = 0) -> list[Call]:
        """Return the arguments of each ``update``, the same ones for the same seed."""
        return FEEDS[self.feed](torch.Generator().manual_seed(seed))


def absent(packages: Iterable[str]) -> list[str]:
    """Return those of ``packages`` that cannot be imported here."""
    return [package for package in packages if find_spec(package) is None or not _imports(package)]


@cache
def _imports(package: str) -> bool:
    try:
        import_module(package)
    except (ImportError, RuntimeError):  # torchvision beside a torch that it was not built for
        return False
    return True


# What metrics are fed


def _fed(one: Callable[[int, torch.Generator], tuple[Any, ...]], sizes: tuple[int, ...] = SIZES) -> Any:
    """Batches of positional arguments."""

    def batches(generator: torch.Generator) -> list[Call]:
        return [(one(size, generator), {}) for size in sizes]

    batches.__doc__ = one.__doc__
    return batches


FEEDS: dict[str, Callable[[torch.Generator], list[Call]]] = {}


def feed(function: Callable[[int, torch.Generator], tuple[Any, ...]]) -> Any:
    """Register what metrics are fed, under the name of the function."""
    FEEDS[function.__name__] = _fed(function)
    return function


def _labels(n: int, g: torch.Generator, classes: int = CLASSES, *shape: int) -> Tensor:
    """Labels in which every class occurs where there are rows enough."""
    labels = torch.arange(n * max(1, torch.Size(shape).numel())) % classes
    return labels[torch.randperm(len(labels), generator=g)].reshape(n, *shape)


@feed
def binary(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """probabilities and classes"""
    target = _labels(n, g, 2)
    return (torch.rand(n, generator=g) + 0.2 * target) / 1.2, target


@feed
def binary_groups(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """probabilities, classes and groups"""
    return torch.rand(n, generator=g), _labels(n, g, 2), _labels(n, g, 2)


@feed
def binary_sequences(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a sequence of probabilities and classes a row"""
    return torch.rand(n, 5, generator=g), _labels(n, g, 2, 5)


@feed
def multiclass(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a probability of each class, and classes"""
    target = _labels(n, g)
    return (3 * torch.rand(n, CLASSES, generator=g) + nn.functional.one_hot(target, CLASSES)).softmax(-1), target


@feed
def multiclass_ignored(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a probability of each class, and classes, some of which are ignored"""
    preds, target = multiclass(n, g)
    return preds, torch.where(torch.arange(n) % 4 == 1, -1, target)


@feed
def multiclass_labels(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true classes"""
    return _labels(n, g), _labels(n, g)


@feed
def multiclass_sequences(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a sequence of predicted and true classes a row"""
    target = _labels(n, g, CLASSES, 5)
    return torch.where(torch.rand(n, 5, generator=g) < 0.2, (target + 1) % CLASSES, target), target


@feed
def multilabel(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a probability and a truth of each label"""
    target = _labels(n, g, 2, CLASSES)
    return (torch.rand(n, CLASSES, generator=g) + 0.2 * target) / 1.2, target


@feed
def multilabel_sequences(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a sequence of probabilities and truths a label and row"""
    return torch.rand(n, CLASSES, 5, generator=g), _labels(n, g, 2, CLASSES, 5)


@feed
def numbers(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true numbers"""
    target = torch.rand(n, generator=g) + 0.1
    return target + 0.3 * torch.rand(n, generator=g), target


@feed
def two_numbers(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """two predicted and true numbers a row"""
    target = torch.rand(n, 2, generator=g) + 0.1
    return target + 0.3 * torch.rand(n, 2, generator=g), target


@feed
def value(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """numbers"""
    return (torch.rand(n, generator=g),)


@feed
def weighted(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """numbers and weights"""
    return torch.rand(n, generator=g), torch.rand(n, generator=g)


@feed
def distributions(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """two distributions a row"""
    return torch.rand(n, 4, generator=g).softmax(-1), torch.rand(n, 4, generator=g).softmax(-1)


@feed
def ensemble(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """several predictions and one truth a row"""
    return torch.randn(n, 4, generator=g), torch.randn(n, generator=g)


@feed
def clusters(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true clusters"""
    return _labels(n, g), _labels(n, g)


@feed
def clustered(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """points and their clusters"""
    return torch.randn(n, 2, generator=g), _labels(n, g)


@feed
def ratings(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """counts of ratings of five raters in three categories"""
    votes = torch.randint(3, (n, 5), generator=g)
    return (torch.stack([(votes == category).sum(1) for category in range(3)], 1),)


def queries(g: torch.Generator) -> list[Call]:
    """scores, relevance, and ``indexes`` by keyword: the queries, some of them in several batches"""
    return [
        ((torch.rand(n, generator=g), _labels(n, g, 2)), {"indexes": torch.randint(5, (n,), generator=g)})
        for n in (8, 6, 7, 5)
    ]


FEEDS["queries"] = queries


@feed
def masks(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """one-hot masks"""
    a, b = (_labels(n, g, CLASSES, 6, 6) for _ in range(2))
    return tuple(nn.functional.one_hot(one, CLASSES).movedim(-1, 1) for one in (a, b))


@feed
def index_masks(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """masks of class indices"""
    return _labels(n, g, CLASSES, 6, 6), _labels(n, g, CLASSES, 6, 6)


@feed
def panoptic(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """category and instance of each pixel"""
    rows = torch.tensor([0, 1, 6, 7]).reshape(1, 4, 1).expand(n, 4, 6)
    target = torch.stack([rows, torch.zeros_like(rows)], -1)
    preds = target.clone()
    preds[..., 0][torch.rand(n, 4, 6, generator=g) < 0.3] = 6
    return preds, target


def _boxes(classes: list[int], n: int, g: torch.Generator) -> dict[str, Tensor]:
    corner = 40 * torch.rand(n, 2, generator=g)
    labels = torch.tensor(classes)[torch.arange(n) % len(classes)]
    return {"boxes": torch.cat([corner, corner + 20 + 30 * torch.rand(n, 2, generator=g)], 1), "labels": labels}


def boxes(g: torch.Generator) -> list[Call]:
    """lists of dicts: boxes, scores and labels of each image; each batch has other classes, of 0, 2 and 3"""
    batches: list[Call] = []
    for images, classes in ((3, [0, 2]), (2, [2]), (1, [0, 3]), (2, [0, 2, 3])):
        target = [_boxes(classes, 3, g) for _ in range(images)]
        preds = [
            {
                "boxes": one["boxes"] + 6 * torch.rand(3, 4, generator=g),
                "scores": torch.rand(3, generator=g),
                "labels": one["labels"],
            }
            for one in target
        ]
        batches.append(((preds, target), {}))
    return batches


FEEDS["boxes"] = boxes


def boxes_and_masks(g: torch.Generator) -> list[Call]:
    """lists of dicts: boxes, masks, scores and labels of each image"""
    batches = boxes(g)
    for image in (image for args, _ in batches for images in args for image in images):
        rows, columns = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
        left, top, right, bottom = image["boxes"][:, :, None, None].unbind(1)
        image["masks"] = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    return batches


FEEDS["boxes_and_masks"] = boxes_and_masks

_WORDS = "the cat sat on a mat while two small dogs ran far away from some old house".split()  # noqa: SIM905


def _sentence(g: torch.Generator) -> str:
    n = int(torch.randint(5, 9, (), generator=g))
    return " ".join(_WORDS[i] for i in torch.randint(len(_WORDS), (n,), generator=g).tolist())


def _changed(sentence: str, g: torch.Generator) -> str:
    words = sentence.split()
    words[int(torch.randint(len(words), (), generator=g))] = "bird"
    return " ".join([words[1], words[0], *words[2 : len(words) - int(torch.randint(2, (), generator=g))]])


@feed
def sentences(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """lists of predicted and true strings"""
    target = [_sentence(g) for _ in range(n)]
    return [_changed(one, g) for one in target], target


@feed
def references(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """lists of strings and of lists of true strings"""
    preds, target = sentences(n, g)
    return preds, [[one, _changed(one, g)] for one in target]


@feed
def answers(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """lists of dicts: answers to questions"""
    preds, target = sentences(n, g)
    return (
        [{"prediction_text": one, "id": str(i)} for i, one in enumerate(preds)],
        [{"answers": {"answer_start": [0], "text": [one]}, "id": str(i)} for i, one in enumerate(target)],
    )


@feed
def tokens(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a probability of each token, and tokens"""
    return torch.rand(n, 5, CLASSES, generator=g).softmax(-1), _labels(n, g, CLASSES, 5)


def _image(n: int, g: torch.Generator, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=g)


@feed
def images(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true images"""
    target = _image(n, g)
    return (target + 0.2 * _image(n, g)).clamp(0, 1), target


@feed
def gray_images(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true images of one channel"""
    preds, target = images(n, g)
    return preds[:, :1], target[:, :1]


@feed
def large_images(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true images of 48 x 48 pixels"""
    target = _image(n, g, 48)
    return (target + 0.2 * _image(n, g, 48)).clamp(0, 1), target


@feed
def one_image(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """images"""
    return (_image(n, g, 8),)


@feed
def pansharpened(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """images, and a dict of images"""
    return _image(n, g), {"ms": _image(n, g, 16), "pan": _image(n, g), "pan_lr": _image(n, g, 16)}


def real_and_fake(g: torch.Generator) -> list[Call]:
    """images with ``real=True`` and with ``real=False``, by keyword"""
    return [((_image(n, g, 8),), {"real": real}) for n, real in [(7, True), (6, False), (5, False), (6, True)]]


FEEDS["real_and_fake"] = real_and_fake


@feed
def captions(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """a list of images and a list of strings"""
    return list(_image(n, g, 8)), sentences(n, g)[0]


def generators(g: torch.Generator) -> list[Call]:
    """a generator of images"""
    return [((Generator(),), {}) for _ in SIZES]


FEEDS["generators"] = generators


@feed
def signals(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true signals"""
    target = torch.randn(n, 600, generator=g)
    return target + 0.3 * torch.randn(n, 600, generator=g), target


@feed
def speech(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true signals of half a second"""
    target = torch.randn(n, 4000, generator=g)
    return target + 0.3 * torch.randn(n, 4000, generator=g), target


@feed
def one_signal(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """signals of half a second"""
    return (torch.randn(n, 4000, generator=g),)


@feed
def spectra(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true complex spectra"""
    target = torch.randn(n, 9, 4, 2, generator=g)
    return target + 0.3 * torch.randn(n, 9, 4, 2, generator=g), target


@feed
def sources(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true signals of two speakers"""
    target = torch.randn(n, 2, 100, generator=g)
    return target.flip(1) + 0.3 * torch.randn(n, 2, 100, generator=g), target


@feed
def points(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """two clouds of points a row"""
    return torch.randn(n, 6, 2, generator=g), torch.randn(n, 6, 2, generator=g)


@feed
def faces(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """predicted and true vertices"""
    return torch.randn(n, 9, 3, generator=g), torch.randn(n, 9, 3, generator=g)


def videos(g: torch.Generator) -> list[Call]:
    """predicted and true videos"""
    return [(tuple(torch.rand(n, 3, 3, 32, 32, generator=g) for _ in "pt"), {}) for n in (2, 1, 1)]


FEEDS["videos"] = videos


@feed
def tasks(n: int, g: torch.Generator) -> tuple[Any, ...]:
    """dicts by task"""
    preds, target = multiclass(n, g)
    other, true = numbers(n, g)
    return {"kind": preds, "size": other}, {"kind": target, "size": true}


# Networks, where torchmetrics takes one's own


class Features(nn.Module):
    """Four features of an image."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3)), *images[:, :2].amax((2, 3)).unbind(1)], 1)


class Distance(nn.Module):
    """A distance of each two images."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).square().mean((1, 2, 3))


class Generator(nn.Module):
    """Makes an image of two numbers."""

    def forward(self, latent: Tensor) -> Tensor:
        return 255 * torch.sigmoid(latent.sum(1)).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8)

    def sample(self, n: int) -> Tensor:
        return torch.randn(n, 2)


class Tokenizer:
    """A token for each word."""

    def __call__(self, text: list[str], max_length: int | None = None) -> dict[str, Tensor]:
        ids = torch.zeros(len(text), 12, dtype=torch.long)
        for row, sentence in enumerate(text):
            found = [1, *(3 + [*_WORDS, "bird"].index(word) for word in sentence.split()), 2]
            ids[row, : len(found)] = torch.tensor(found)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def embed(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["input_ids"])


def embedding() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Embedding(len(_WORDS) + 4, 4)


def language_model() -> str:
    """A folder with a tiny language model, as transformers saves it; processes started from here have the same."""
    if _FOLDER in os.environ:
        return os.environ[_FOLDER]
    from transformers import BertConfig, BertForMaskedLM

    folder = Path(mkdtemp())
    atexit.register(rmtree, folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, "bird"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, initializer_range=1.0, **sizes)
        BertForMaskedLM(config).save_pretrained(folder)
    os.environ[_FOLDER] = str(folder)
    return str(folder)


_FOLDER = "METRIC_MIXIN_ZOO_MODEL"


class Clip(nn.Module):
    """Features of images and of texts in one space."""

    config = None

    def __init__(self) -> None:
        super().__init__()
        self.words, self.features = embedding(), Features()

    def get_image_features(self, images: Tensor) -> Tensor:
        return self.features(images)

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.words(ids).mean(1).abs()


def clip() -> tuple[nn.Module, Any]:
    def process(text: Any = None, images: Any = None, **options: Any) -> dict[str, Tensor]:
        return Tokenizer()(text) if images is None else {"pixel_values": torch.stack(images)}

    return Clip(), process


def negative(x: Tensor) -> Tensor:
    return 1 - x


def snr(preds: Tensor, target: Tensor) -> Tensor:
    return -(preds - target).square().mean(-1)


# The rows

EACH = tuple(f"/{i}" for i in range(CLASSES))
NONE: dict[str, Any] = {"keys": (), "whole": ("",)}
_AT_FIXED = {
    "PrecisionAtFixedRecall": "min_recall",
    "RecallAtFixedPrecision": "min_precision",
    "SensitivityAtSpecificity": "min_specificity",
    "SpecificityAtSensitivity": "min_sensitivity",
}
_ARRAYS = {"ConfusionMatrix", "PrecisionRecallCurve", "ROC", "StatScores", *_AT_FIXED}
_CURVES = {"AUROC", "AveragePrecision", "EER", "LogAUC", "PrecisionRecallCurve", "ROC", *_AT_FIXED}
_COUNTS = "Accuracy F1Score FBetaScore HammingDistance NegativePredictiveValue Precision Recall Specificity".split()  # noqa: SIM905
_AVERAGED = [*_COUNTS, "AUROC", "AveragePrecision", "JaccardIndex", "StatScores"]
_ALL = [*_COUNTS, *_CURVES, "ConfusionMatrix", "JaccardIndex", "MatthewsCorrCoef", "StatScores"]
_ONE_TASK = {
    "Binary": ["CalibrationError", "CohenKappa", "HingeLoss"],
    "Multiclass": ["CalibrationError", "CohenKappa", "HingeLoss", "ExactMatch"],
    "Multilabel": ["CoverageError", "ExactMatch", "RankingAveragePrecision", "RankingLoss"],
}
_SIZE = {"Binary": {}, "Multiclass": {"num_classes": CLASSES}, "Multilabel": {"num_labels": CLASSES}}


def _required(kind: str) -> dict[str, Any]:
    return {"beta": 2.0} if kind == "FBetaScore" else {_AT_FIXED[kind]: 0.55} if kind in _AT_FIXED else {}


def _of_task(task: str) -> Iterator[Row]:
    feed_name = task.lower()
    for kind in sorted({*_ALL, *_ONE_TASK[task]}):
        settings = {**_required(kind), **_SIZE[task]}
        path = f"classification.{task}{kind}"
        sequences = kind == "ExactMatch" and task == "Multiclass"
        fed = "multiclass_sequences" if sequences else feed_name
        each = kind in ("EER", "LogAUC") and task != "Binary"
        gives: dict[str, Any] = NONE if kind in _ARRAYS else {"keys": EACH} if each else {}
        yield Row(make(path, **settings), fed, **gives)
        if kind in _CURVES:
            yield Row(make(path, thresholds=5, **settings), fed, **gives)
        if kind in _AVERAGED and task != "Binary":
            gives = NONE if kind in _ARRAYS else {"keys": EACH}
            yield Row(make(path, average=None, **settings), fed, **gives)
        if kind in (*_COUNTS, "StatScores", "ExactMatch"):
            samplewise = make(path, multidim_average="samplewise", **settings)
            yield Row(samplewise, f"{feed_name}_sequences", **NONE)


def _by_task() -> Iterator[Row]:
    """The classes that hand out another one by ``task``."""
    for kind in sorted({*_ALL, "CalibrationError", "CohenKappa", "HingeLoss", "ExactMatch"}):
        gives: dict[str, Any] = NONE if kind in _ARRAYS else {"keys": EACH} if kind in ("EER", "LogAUC") else {}
        settings = {"task": "multiclass", "num_classes": CLASSES, **_required(kind)}
        fed = "multiclass_sequences" if kind == "ExactMatch" else "multiclass"
        yield Row(make(f"classification.{kind}", **settings), fed, **gives)


def _classification() -> Iterator[Row]:
    yield from chain.from_iterable(map(_of_task, _SIZE))
    yield from _by_task()
    of = "classification."
    ids = {"/DP": "demographic_parity", "/EO": "equal_opportunity"}
    yield Row(make(of + "BinaryFairness", 2), "binary_groups", keys=("/DP", "/EO"), whole=("/groups",))
    for key, task in ids.items():
        yield Row(make(of + "BinaryFairness", 2, task=task), "binary_groups", keys=(key,), whole=("/groups",))
    yield Row(make(of + "BinaryGroupStatRates", 2), "binary_groups", (), ("/group_0", "/group_1"))
    labels = {"num_classes": CLASSES, "average": None}
    yield Row(make(of + "MulticlassAccuracy", **labels), "multiclass_labels", EACH)
    yield Row(make(of + "MulticlassAccuracy", ignore_index=-1, **labels), "multiclass_ignored", EACH)
    yield Row(make(of + "MulticlassAccuracy", CLASSES, top_k=2), "multiclass")
    yield Row(make(of + "MulticlassAUROC", CLASSES, average="none", thresholds=5), "multiclass", EACH)
    yield Row(make(of + "MulticlassHingeLoss", CLASSES, multiclass_mode="one-vs-all"), "multiclass", EACH)
    yield Row(make(of + "MulticlassROC", CLASSES, average="macro"), "multiclass", **NONE)
    yield Row(make(of + "MulticlassConfusionMatrix", CLASSES, normalize="true"), "multiclass", **NONE)


def _regression() -> Iterator[Row]:
    of = "regression."
    two = ("/0", "/1")
    plain = (
        "ConcordanceCorrCoef ExplainedVariance KendallRankCorrCoef LogCoshError MeanAbsoluteError "
        "MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogError NormalizedRootMeanSquaredError "
        "PearsonCorrCoef R2Score RelativeSquaredError SpearmanCorrCoef SymmetricMeanAbsolutePercentageError "
        "TweedieDevianceScore WeightedMeanAbsolutePercentageError"
    )
    yield from (Row(make(of + name), "numbers") for name in plain.split())
    yield Row(make(of + "MinkowskiDistance", 3), "numbers")
    yield Row(make(of + "CriticalSuccessIndex", 0.6), "numbers")
    yield Row(make(of + "ContinuousRankedProbabilityScore"), "ensemble")
    yield Row(make(of + "CosineSimilarity"), "two_numbers")
    yield from (Row(make(of + name), "distributions") for name in ("JensenShannonDivergence", "KLDivergence"))
    several = (
        "ConcordanceCorrCoef KendallRankCorrCoef LogCoshError MeanAbsoluteError MeanSquaredError "
        "NormalizedRootMeanSquaredError PearsonCorrCoef SpearmanCorrCoef"
    )
    yield from (Row(make(of + name, num_outputs=2), "two_numbers", two) for name in several.split())
    yield Row(make(of + "RelativeSquaredError", num_outputs=2), "two_numbers")
    for name in ("ExplainedVariance", "R2Score"):
        yield Row(make(of + name, multioutput="raw_values"), "two_numbers", two, late=two)
    yield Row(make(of + "CosineSimilarity", reduction="none"), "two_numbers", **NONE)
    yield Row(make(of + "CriticalSuccessIndex", 0.5, keep_sequence_dim=0), "two_numbers", **NONE)
    for name in ("JensenShannonDivergence", "KLDivergence"):
        yield Row(make(of + name, reduction=None), "distributions", **NONE)
    yield Row(make(of + "KendallRankCorrCoef", t_test=True), "numbers", **NONE)
    yield Row(make(of + "KendallRankCorrCoef", t_test=True, num_outputs=2), "two_numbers", **NONE)


def _small_modules() -> Iterator[Row]:
    for name in ("AUROC", "MAP", "MRR", "NormalizedDCG", "Precision", "RPrecision"):
        yield Row(make(f"retrieval.Retrieval{name}"), "queries")
    for name in ("FallOut", "HitRate", "Recall"):
        yield Row(make(f"retrieval.Retrieval{name}", top_k=3), "queries")
    yield Row(make("retrieval.RetrievalPrecision", top_k=3, adaptive_k=True), "queries")
    yield Row(make("retrieval.RetrievalMAP", aggregation="median", empty_target_action="skip"), "queries")
    yield Row(make("retrieval.RetrievalPrecisionRecallCurve", max_k=4), "queries", **NONE)
    yield Row(make("retrieval.RetrievalRecallAtFixedPrecision", 0.5, max_k=4), "queries", **NONE)

    names = (
        "AdjustedMutualInfoScore AdjustedRandScore CompletenessScore FowlkesMallowsIndex HomogeneityScore "
        "MutualInfoScore NormalizedMutualInfoScore RandScore VMeasureScore"
    )
    yield from (Row(make(f"clustering.{name}"), "clusters") for name in names.split())
    assignment = ("torch_linear_assignment",)
    yield Row(make("clustering.ClusterAccuracy", CLASSES), "clusters", needs=assignment)
    for name in ("CalinskiHarabaszScore", "DaviesBouldinScore", "DunnIndex"):
        yield Row(make(f"clustering.{name}"), "clustered")

    for name in ("CramersV", "PearsonsContingencyCoefficient", "TheilsU", "TschuprowsT"):
        yield Row(make(f"nominal.{name}", CLASSES), "clusters")
    yield Row(make("nominal.FleissKappa"), "ratings")

    yield from (Row(make(f"aggregation.{kind}Metric"), "value") for kind in ("Max", "Mean", "Min", "Sum"))
    yield Row(make("aggregation.MeanMetric", nan_strategy="ignore"), "weighted")
    yield Row(make("aggregation.CatMetric"), "value", **NONE)
    yield from (Row(make(f"aggregation.Running{kind}", window=2), "value") for kind in ("Mean", "Sum"))

    yield Row(make("shape.ProcrustesDisparity"), "points")
    yield Row(make("multimodal.LipVertexError", [0, 2]), "faces")
    yield Row(make("metric.CompositionalMetric", torch.add, _RECALL, _RECALL), "multiclass")
    yield Row(make("metric.CompositionalMetric", torch.mul, _RECALLS, 2.0), "multiclass", EACH)
    yield Row(make("multimodal.clip_score.CLIPScore", clip), "captions")


_THINGS = {"things": {0, 1}, "stuffs": {6, 7}}
_STATS = tuple(f"/map{s}" for s in ("", "_50", "_75", "_small", "_medium", "_large"))
_STATS += tuple(f"/mar_{s}" for s in ("1", "10", "100", "small", "medium", "large"))
_PER_CLASS = tuple(f"/{key}_per_class" for key in ("map", "mar_100"))
_SEEN = ("0", "2", "3")


def _detection() -> Iterator[Row]:
    of = "detection."
    needs = ("torchvision",)
    for name, key in (("Complete", "ciou"), ("Distance", "diou"), ("Generalized", "giou"), ("", "iou")):
        path = f"{of}{name}IntersectionOverUnion"
        each = tuple(f"/{key}/{label}" for label in _SEEN)
        yield Row(make(path), "boxes", (f"/{key}",), needs=needs)
        yield Row(make(path, class_metrics=True), "boxes", (f"/{key}", *each), late=each, needs=needs)
    path = "detection.MeanAveragePrecision"
    needs = ("torchvision", "pycocotools")
    each = tuple(f"{key}/{label}" for key in _PER_CLASS for label in _SEEN)
    stats = _STATS + _PER_CLASS
    yield Row(make(path), "boxes", stats, ("/classes",), needs=needs)
    yield Row(make(path, class_metrics=True), "boxes", _STATS + each, ("/classes",), each, needs)
    both = tuple(f"/{iou}_{key[1:]}" for iou in ("bbox", "segm") for key in stats)
    yield Row(make(path, iou_type=("bbox", "segm")), "boxes_and_masks", both, ("/classes",), needs=needs)
    extra = tuple(f"/{key}" for key in ("ious", "precision", "recall", "scores"))
    yield Row(make(path, extended_summary=True), "boxes", stats, (*extra, "/classes"), needs=needs)
    each = ("/0", "/1", "/6", "/7")
    yield from (Row(make(of + name, **_THINGS), "panoptic") for name in ("ModifiedPanopticQuality", "PanopticQuality"))
    yield Row(make(of + "PanopticQuality", return_per_class=True, **_THINGS), "panoptic", each)
    yield Row(make(of + "PanopticQuality", return_sq_and_rq=True, **_THINGS), "panoptic", **NONE)
    both = {"return_per_class": True, "return_sq_and_rq": True}
    yield Row(make(of + "PanopticQuality", **both, **_THINGS), "panoptic", **NONE)

    of = "segmentation."
    yield Row(make(of + "DiceScore", CLASSES), "masks")
    yield Row(make(of + "DiceScore", CLASSES, average=None, aggregation_level="global"), "masks", EACH)
    yield Row(make(of + "GeneralizedDiceScore", CLASSES), "masks")
    each = {"per_class": True, "include_background": False}
    yield Row(make(of + "GeneralizedDiceScore", CLASSES, **each), "masks", ("/1", "/2"))
    yield Row(make(of + "HausdorffDistance", CLASSES), "masks")
    yield Row(make(of + "MeanIoU", CLASSES), "masks")
    yield Row(make(of + "MeanIoU", CLASSES, per_class=True, input_format="index"), "index_masks", EACH)
    yield Row(make(of + "MeanIoU", per_class=True), "masks", EACH, late=EACH)


def _text() -> Iterator[Row]:
    of = "text."
    names = (
        "CharErrorRate EditDistance ExtendedEditDistance MatchErrorRate TranslationEditRate WordErrorRate "
        "WordInfoLost WordInfoPreserved"
    )
    yield from (Row(make(of + name), "sentences") for name in names.split())
    yield from (Row(make(of + name), "references") for name in ("BLEUScore", "CHRFScore", "SacreBLEUScore"))
    yield Row(make(of + "SacreBLEUScore", tokenize="intl"), "references", needs=("regex",))
    yield Row(make(of + "Perplexity"), "tokens")
    yield Row(make(of + "SQuAD"), "answers", ("/exact_match", "/f1"))
    keys = tuple(f"/rouge{kind}_{part}" for kind in "1L" for part in ("fmeasure", "precision", "recall"))
    rouge = {"rouge_keys": ("rouge1", "rougeL")}
    yield Row(make(of + "ROUGEScore", **rouge), "sentences", keys)
    yield Row(make(of + "ROUGEScore", use_stemmer=True, **rouge), "sentences", keys, needs=("nltk",))
    yield Row(make(of + "EditDistance", reduction="none"), "sentences", **NONE)
    yield Row(make(of + "CHRFScore", return_sentence_level_score=True), "references", **NONE)
    for name in ("ExtendedEditDistance", "TranslationEditRate"):
        yield Row(make(of + name, return_sentence_level_score=True), "references", **NONE)
    lm = {"idf": False, "information_measure": "l2_distance", "max_length": 16, "verbose": False}
    for more, gives in ({}, {}), ({"return_sentence_level_score": True}, NONE):
        infolm = make(of + "infolm.InfoLM", make("language_model"), **lm, **more)
        yield Row(infolm, "sentences", needs=("transformers",), **gives)
    own = {"model": make("embedding"), "user_tokenizer": make("Tokenizer"), "user_forward_fn": embed}
    parts = ("/precision", "/recall", "/f1")
    yield Row(make(of + "bert.BERTScore", **own), "sentences", (), parts)
    yield Row(make(of + "bert.BERTScore", return_hash=True, **own), "sentences", (), (*parts, "/hash"))


def _image_metrics() -> Iterator[Row]:
    of = "image."
    names = (
        "ErrorRelativeGlobalDimensionlessSynthesis RelativeAverageSpectralError "
        "RootMeanSquaredErrorUsingSlidingWindow SpatialCorrelationCoefficient SpectralAngleMapper "
        "SpectralDistortionIndex UniversalImageQualityIndex"
    )
    yield from (Row(make(of + name), "images") for name in names.split())
    yield Row(make(of + "VisualInformationFidelity"), "large_images")
    yield Row(make(of + "PeakSignalNoiseRatio", 1.0), "images")
    yield Row(make(of + "PeakSignalNoiseRatio", (0.0, 1.0)), "images")
    yield Row(make(of + "PeakSignalNoiseRatioWithBlockedEffect", data_range=1.0), "gray_images")
    yield Row(make(of + "StructuralSimilarityIndexMeasure", data_range=1.0), "images")
    scales = {"betas": (0.4, 0.6), "kernel_size": 3, "data_range": 1.0}
    yield Row(make(of + "MultiScaleStructuralSimilarityIndexMeasure", **scales), "images")
    yield Row(make(of + "TotalVariation"), "one_image")
    yield from (
        Row(make(of + name), "pansharpened", needs=("torchvision",))
        for name in ("QualityWithNoReference", "SpatialDistortionIndex")
    )
    ergas = "ErrorRelativeGlobalDimensionlessSynthesis"
    for name in (ergas, "SpectralAngleMapper", "SpectralDistortionIndex", "UniversalImageQualityIndex"):
        yield Row(make(of + name, reduction="none"), "images", **NONE)
    yield Row(make(of + "VisualInformationFidelity", reduction="none"), "large_images", **NONE)
    yield Row(make(of + "TotalVariation", reduction=None), "one_image", **NONE)
    yield Row(make(of + "PeakSignalNoiseRatio", 1.0, reduction="none", dim=(1, 2, 3)), "images", **NONE)
    yield Row(make(of + "PeakSignalNoiseRatio", 1.0, reduction="none"), "images")
    for extra in ({"reduction": None}, {"return_full_image": True}, {"return_contrast_sensitivity": True}):
        yield Row(make(of + "StructuralSimilarityIndexMeasure", data_range=1.0, **extra), "images", **NONE)
    scales["reduction"] = "none"
    yield Row(make(of + "MultiScaleStructuralSimilarityIndexMeasure", **scales), "images", **NONE)

    own = {"feature": make("Features")}
    fid = make(of + "fid.FrechetInceptionDistance", normalize=True, **own)
    yield Row(fid, "real_and_fake")
    yield Row(make(of + "MemorizationInformedFrechetInceptionDistance", **own), "real_and_fake")
    subsets = {"subsets": 3, "subset_size": 4}
    yield Row(make(of + "kid.KernelInceptionDistance", **subsets, **own), "real_and_fake", **NONE)
    yield Row(make(of + "inception.InceptionScore", splits=2, **own), "one_image", **NONE)
    path = {"num_samples": 8, "resize": None, "sim_net": make("Distance")}
    ppl = make(of + "perceptual_path_length.PerceptualPathLength", **path)
    yield Row(ppl, "generators", needs=("torchvision",), **NONE)


def _audio() -> Iterator[Row]:
    of = "audio."
    names = "ScaleInvariantSignalDistortionRatio ScaleInvariantSignalNoiseRatio SignalDistortionRatio SignalNoiseRatio"
    yield from (Row(make(of + name), "signals") for name in names.split())
    yield Row(make(of + "ComplexScaleInvariantSignalNoiseRatio"), "spectra")
    yield Row(make(of + "SourceAggregatedSignalDistortionRatio"), "sources")
    yield Row(make(of + "PermutationInvariantTraining", snr), "sources")
    yield Row(make(of + "stoi.ShortTimeObjectiveIntelligibility", 8000), "speech", needs=("pystoi",))
    srmr = make(of + "srmr.SpeechReverberationModulationEnergyRatio", 8000)
    yield Row(srmr, "one_signal", needs=("torchaudio", "gammatone"))
    needs = ("vmaf_torch", "einops")
    vmaf = "video.vmaf.VideoMultiMethodAssessmentFusion"
    yield Row(make(vmaf), "videos", needs=needs, **NONE)
    motion = [f"integer_motion{s}" for s in ("2", "")]
    scales = [f"integer_adm{s}" for s in ("2", *(f"_scale{i}" for i in range(4)))]
    fields = ["vmaf", *motion, *scales, *(f"integer_vif_scale{i}" for i in range(4))]
    yield Row(make(vmaf, features=True), "videos", (), tuple(f"/{one}" for one in fields), needs=needs)


_RECALL = make("classification.MulticlassRecall", CLASSES)
_RECALLS = make("classification.MulticlassRecall", CLASSES, average=None)
_MSE = make("regression.MeanSquaredError")
_NAMES = ["ant", "bee", "cat"]


def _wrappers() -> Iterator[Row]:
    of = "wrappers."
    named = tuple(f"/{name}" for name in _NAMES)
    yield Row(make(of + "ClasswiseWrapper", _RECALLS), "multiclass", EACH)
    yield Row(make(of + "ClasswiseWrapper", _RECALLS, labels=_NAMES), "multiclass", named)
    prefixed = {"labels": _NAMES, "prefix": "recall-"}
    yield Row(make(of + "ClasswiseWrapper", _RECALLS, **prefixed), "multiclass", tuple(f"/recall-{n}" for n in _NAMES))
    postfixed = {"labels": _NAMES, "postfix": "-recall"}
    keys = tuple(f"/{n}-recall" for n in _NAMES)
    yield Row(make(of + "ClasswiseWrapper", _RECALLS, **postfixed), "multiclass", keys)
    yield Row(make(of + "MinMaxMetric", _RECALL), "multiclass", ("/raw", "/max", "/min"))
    task_metrics = {"kind": _RECALL, "size": _MSE}
    yield Row(make(of + "MultitaskWrapper", task_metrics), "tasks", ("/kind", "/size"))
    yield Row(make(of + "MultitaskWrapper", task_metrics, prefix="x-"), "tasks", ("/x-kind", "/x-size"))
    both = make("collections.MetricCollection", {"all": _RECALL, "each": _RECALLS}, prefix="r_")
    keys = ("/kind/r_all", *(f"/kind/r_each{i}" for i in EACH), "/size")
    yield Row(make(of + "MultitaskWrapper", {"kind": both, "size": _MSE}), "tasks", keys)
    yield Row(make(of + "MultioutputWrapper", _MSE, 2), "two_numbers", ("/0", "/1"))
    boot = {"num_bootstraps": 4, "sampling_strategy": "multinomial"}
    yield Row(make(of + "BootStrapper", _RECALL, **boot), "multiclass", ("/mean", "/std"))
    extra = {"quantile": 0.5, "raw": True}
    keys = ("/mean", "/std", "/quantile")
    yield Row(make(of + "BootStrapper", _RECALL, **boot, **extra), "multiclass", keys, ("/raw",))
    keys = tuple(f"/{part}{i}" for part in ("mean", "std") for i in EACH)
    yield Row(make(of + "BootStrapper", _RECALLS, **boot), "multiclass", keys)
    yield Row(make(of + "Running", _RECALL, window=2), "multiclass")
    yield Row(make(of + "Running", _RECALLS, window=2), "multiclass", EACH)
    yield Row(make(of + "BinaryTargetTransformer", make("classification.BinaryAccuracy"), 0.5), "numbers")
    yield Row(make(of + "LambdaInputTransformer", make("classification.BinaryAccuracy"), negative), "binary")
    yield Row(make(of + "MetricInputTransformer", _MSE), "numbers")
    classwise = make(of + "ClasswiseWrapper", _RECALLS, labels=_NAMES)
    several = make("collections.MetricCollection", {"all": _RECALL, "each": _RECALLS, "named": classwise})
    keys = ("/all", *(f"/each{i}" for i in EACH), *(f"/named{name}" for name in named))
    yield Row(make(of + "LambdaInputTransformer", several, negative), "multiclass", keys)


ROWS: tuple[Row, ...] = (
    *_classification(),
    *_regression(),
    *_small_modules(),
    *_detection(),
    *_text(),
    *_image_metrics(),
    *_audio(),
    *_wrappers(),
)

NOT_HERE: dict[str, str] = {
    "ARNIQA": "its weights are loaded from the network, and it takes no own network",
    "CLIPImageQualityAssessment": "its CLIP model is loaded from the network, and it takes no own model",
    "DeepImageStructureAndTextureSimilarity": "its weights are loaded from the network, and it takes no own network",
    "DeepNoiseSuppressionMeanOpinionScore": "its models are loaded from the network",
    "FeatureShare": "a collection: `test_wrappers.py` declares it and counts the runs of its network",
    "LearnedPerceptualImagePatchSimilarity": "its backbone's weights are loaded from the network",
    "MetricTracker": "refused: `MetricLogging(track_best=...)` logs the best value over epochs",
    "NonIntrusiveSpeechQualityAssessment": "its weights are loaded from the network",
    "PerceptualEvaluationSpeechQuality": "its package pesq has no wheel, only a source that needs a C compiler",
}
"""Classes without a row, and why."""


# The page


def page() -> str:
    """The page of the documentation: a table of the rows, and one of the classes without."""
    modules: dict[str, list[Row]] = {}
    for row in ROWS:
        modules.setdefault(row.make.path.partition(".")[0], []).append(row)
    parts = [_HEAD.format(rows=len(ROWS), classes=len({row.make.name for row in ROWS}))]
    for module in sorted(modules):
        parts.append(
            f"\n## {module}\n\n| metric | fed | logged | kept whole | needs |\n| --- | --- | --- | --- | --- |\n"
        )
        parts += map(_line, sorted(modules[module], key=lambda row: str(row.make)))
    parts.append("\n## Without a row\n\n| class | why |\n| --- | --- |\n")
    parts += [f"| `{name}` | {why} |\n" for name, why in sorted(NOT_HERE.items())]
    return "".join(parts)


_HEAD = """# The zoo

Every modular metric class of torchmetrics, {classes} of them with {rows} settings, in a real Trainer: two epochs with
a sanity check before them, in which each value equals, to the last bit, that of a plain instance fed the same batches
by hand. `tests/zoo.py` has the rows, `tests/test_zoo.py` runs them, and a class of a newer torchmetrics fails there
until it has one. This page is written by `python -m tests.zoo`; `make zoo` runs every row.

Metrics are declared under the name `m`. Keys in *italics* are known once a value was computed, the others before. What
is kept whole is in `metric_results`, and not logged. Where torchmetrics takes one's own network, a tiny one of
`tests/zoo.py` is used.
"""


def _line(row: Row) -> str:
    logged = [f"*m{key}*" if key in row.late else f"`m{key}`" for key in row.keys]
    whole = [f"`m{key}`" for key in row.whole]
    cells = [f"`{row.make}`", FEEDS[row.feed].__doc__ or "", _short(logged), _short(whole), ", ".join(row.needs)]
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")


def _short(keys: list[str]) -> str:
    return " ".join(keys if len(keys) <= 8 else [*keys[:6], "...", keys[-1]])


if __name__ == "__main__":
    PAGE.write_text(page())
