"""Values become pictures, by the metric's own ``plot``."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import tensor
from torchmetrics import Metric, MinMaxMetric
from torchmetrics.classification import (
    BinaryROC,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassROC,
    MultilabelConfusionMatrix,
    MultilabelPrecisionRecallCurve,
)

from metric_mixin._errors import MissingDependencyError
from metric_mixin._figures import draw, draw_history
from metric_mixin._fit import fonts, lacking

LABELS = ["ant", "bee", "cat"]
SCORES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
CLASSES = tensor([0, 1, 2, 1])
BITS = tensor([[1, 0, 0], [0, 1, 1], [1, 0, 1], [0, 1, 0]])


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def drawn(metric, *inputs, labels=None):
    metric.update(*inputs)
    return draw(metric, metric.compute(), "val/x", labels)


def test_a_confusion_matrix_is_drawn_with_its_counts_and_class_names():
    """The picture shows the given counts and names the classes on both axes; its title is the key."""
    value = tensor([[7, 1, 0], [2, 8, 3], [0, 4, 9]])
    figure = draw(MulticlassConfusionMatrix(3), value, "val/confusion", LABELS)
    (axes,) = figure.axes
    assert texts(figure) == ["7", "1", "0", "2", "8", "3", "0", "4", "9"]
    assert [label.get_text() for label in axes.get_xticklabels()] == LABELS
    assert [label.get_text() for label in axes.get_yticklabels()] == LABELS
    assert figure.get_suptitle() == "val/confusion"


def test_without_labels_classes_have_their_index():
    """A metric without class names is drawn with the indices that torchmetrics gives."""
    figure = draw(MulticlassConfusionMatrix(2), tensor([[1, 0], [0, 1]]), "t")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1"]


@pytest.mark.parametrize(
    ("metric", "inputs"),
    [
        (MulticlassROC(3), (SCORES, CLASSES)),
        (MulticlassROC(3, thresholds=4), (SCORES, CLASSES)),
        (BinaryROC(), (SCORES[:, 0], CLASSES > 0)),
        (MultilabelConfusionMatrix(3), (SCORES, BITS)),
        (MulticlassAccuracy(3, average=None), (SCORES, CLASSES)),
        (MinMaxMetric(MulticlassAccuracy(3)), (SCORES, CLASSES)),
    ],
    ids=["roc", "roc-binned", "roc-binary", "confusion-per-label", "vector", "min-max"],
)
@pytest.mark.parametrize("labels", [None, LABELS], ids=["plain", "named"])
def test_every_metric_with_a_plot_can_be_drawn(metric, inputs, labels, tmp_path):
    """Curves, matrices a label, vectors and dicts are drawn, with names also where ``plot`` takes none."""
    figure = drawn(metric.clone(), *inputs, labels=labels)
    figure.savefig(tmp_path / "x.png")
    assert figure.get_suptitle() == "val/x"
    assert figure.axes


def test_drawing_computes_nothing():
    """The given value is drawn; ``compute``, which might sync, is not called."""

    class Refusing(MulticlassConfusionMatrix):
        def compute(self):
            raise AssertionError("computed again")

    assert texts(draw(Refusing(2), tensor([[3, 0], [0, 4]]), "t")) == ["3", "0", "0", "4"]


def test_drawing_opens_no_window_and_leaves_no_figure():
    """A picture is made without pyplot: no figure stays open there, and the back end is not touched."""
    import matplotlib
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    figure = draw(MulticlassConfusionMatrix(2), tensor([[1, 0], [0, 1]]), "t")
    assert pyplot.get_fignums() == []
    assert matplotlib.get_backend() == before
    assert type(figure.canvas).__name__ == "FigureCanvasAgg"


@pytest.mark.parametrize(("classes", "side"), [(2, 5.8), (20, 11.2), (100, 18.0), (500, 18.0)])
def test_a_picture_grows_with_its_classes_within_limits(classes, side):
    """A matrix has 0.45 inches a class as long as its cells have room for a number, less beyond, and 18 at most."""
    figure = draw(MulticlassConfusionMatrix(classes), torch.zeros(classes, classes), "t")
    assert figure.get_size_inches()[0] == pytest.approx(side)


@pytest.mark.parametrize("classes", [2, 10, 30, 100, 300])
@pytest.mark.parametrize("name", ["{}", "class {}", "the rather long name of a class, number {}"], ids=len)
def test_names_and_numbers_of_a_matrix_overlap_nothing(classes, name):
    """At any number of classes and length of names, no two texts of an axis and no two numbers cover each other."""
    labels = [name.format(i) for i in range(classes)]
    figure = draw(MulticlassConfusionMatrix(classes), torch.full((classes, classes), 12345), "val/confusion", labels)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    rows = [text.get_window_extent() for text in axes.get_yticklabels()]
    numbers = [text.get_window_extent() for text in axes.texts[: 2 * classes]]
    title = figure._suptitle.get_window_extent()
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(rows))
    assert all(not one.overlaps(two) for one, two in pairwise(numbers))
    assert title.y0 >= axes.get_window_extent().y1
    assert len(axes.texts) == (classes**2 if classes <= 30 else 0)
    assert len(figure.axes) == (1 if classes <= 30 else 2)  # beside it, a colour bar
    assert min(extent.x0 for extent in rows) >= 0


def test_names_are_shortened_in_the_middle():
    """Two long names that differ at their ends stay apart."""
    labels = [f"{'very ' * 20}long {i}" for i in range(2)]
    figure = draw(MulticlassConfusionMatrix(2), torch.eye(2), "t", labels)
    one, two = (label.get_text() for label in figure.axes[0].get_xticklabels())
    assert one != two
    assert max(len(one), len(two)) <= 32


def legend(figure):
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


@pytest.mark.parametrize(
    ("metric", "inputs"),
    [
        (MulticlassROC(3), (SCORES, CLASSES)),
        (MulticlassROC(3, thresholds=4), (SCORES, CLASSES)),
        (MultilabelPrecisionRecallCurve(3, thresholds=4), (SCORES, BITS)),
        (MulticlassAccuracy(3, average=None), (SCORES, CLASSES)),
    ],
    ids=["roc", "roc-binned", "precision-recall", "vector"],
)
def test_lines_a_class_have_its_name(metric, inputs):
    """Where ``plot`` takes no labels and numbers its lines, the legend names the classes, each at its own line."""
    plain, named = (drawn(metric.clone(), *inputs, labels=labels) for labels in (None, LABELS))
    assert [text[-1] for text in legend(plain)] == ["0", "1", "2"]
    assert legend(named) == LABELS
    for one, two in zip(plain.axes[0].lines[:3], named.axes[0].lines[:3], strict=True):
        np.testing.assert_array_equal(one.get_xydata(), two.get_xydata())


@pytest.mark.parametrize(
    ("texts", "named"),
    [(["c0", "c1", "c2"], True), (["c1", "c2", "c0"], False), (["0", "1"], False), (["low", "mid", "high"], False)],
    ids=["numbered", "another-order", "another-number", "other-names"],
)
def test_lines_that_are_not_numbered_class_by_class_stay_as_they_are(texts, named):
    """A legend that cannot be told to be the classes' in order is left alone."""

    class Own(MulticlassROC):
        def plot(self, curve, ax=None):
            for text in texts:
                ax.plot([0, 1], [0, 1], label=text)

    assert legend(draw(Own(3), (), "t", LABELS)) == (LABELS if named else texts)


def roc(classes, names, title):
    metric = MulticlassROC(classes, thresholds=5)
    metric.update(torch.rand(200, classes).softmax(1), torch.randint(classes, (200,)))
    return draw(metric, metric.compute(), title, names)


def history(classes, names, title):
    return draw_history({name: {0: 0.0, 1: i / classes} for i, name in enumerate(names)}, title)


TEXTS = {
    "names": ("val/x", "the rather long name of a class, number {}"),
    "title": ("val/a/rather/long/key" * 6, "{}"),
}


@pytest.mark.timeout(400)  # 300 lines and their names take half a minute on a busy machine
@pytest.mark.parametrize(
    ("classes", "make", "text"),
    [(classes, make, text) for classes in (2, 10, 100) for make in (roc, history) for text in TEXTS]
    + [(300, roc, "names"), (300, history, "title")],
)
def test_title_legend_and_lines_leave_each_other_room(classes, make, text):
    """The title is over the axes, the legend beside both and whole, and the axes have most of the picture."""
    title, name = TEXTS[text]
    figure = make(classes, [name.format(i) for i in range(classes)], title)
    figure.draw_without_rendering()
    (width, height), (axes,), (beside,) = figure.get_size_inches() * figure.dpi, figure.axes, figure.legends
    heading, legend, inner = (one.get_window_extent() for one in (figure._suptitle, beside, axes))
    assert not heading.overlaps(legend)
    assert heading.x0 >= 0
    assert heading.x0 + heading.x1 == pytest.approx(inner.x0 + inner.x1, abs=8)
    assert inner.y1 <= heading.y0
    assert inner.x1 < legend.x0
    assert (legend.x1, legend.y1) <= (width, height)
    assert legend.y0 >= 0
    assert inner.width * inner.height > 0.35 * width * height
    assert max(width, height) <= 2000
    assert len(beside.get_texts()) == (classes if classes <= 200 else 150)  # every second name
    assert len({str(line.get_color()) for line in axes.lines}) == min(classes, 256)


SQUARE = tensor([[3, 1], [0, 4]])


class Odd(MulticlassConfusionMatrix):
    """A metric whose ``plot`` a test gives."""

    def __init__(self, plot):
        super().__init__(2)
        self.plot = plot


def inset(value, ax=None):
    ax.imshow(value)
    ax.inset_axes([0.5, 0.5, 0.3, 0.3]).imshow(value)


def beside(value, ax=None):
    ax.figure.add_axes([0.1, 0.1, 0.2, 0.2]).imshow(value)


@pytest.mark.parametrize("plot", [inset, beside])
def test_a_plot_may_add_axes_of_its_own(plot, tmp_path):
    """What it draws there is in the picture."""
    figure = draw(Odd(plot), SQUARE, "t")
    figure.savefig(tmp_path / "x.png")
    images = [
        image.get_array().tolist() for axes in figure.axes for a in (axes, *axes.child_axes) for image in a.images
    ]
    assert images == [SQUARE.tolist()] * (2 if plot is inset else 1)


def returned_with_axes(value, ax=None):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.imshow(value)
    return figure, axes


def returned(value):
    return returned_with_axes(value)[0]


def opened(value, **options):
    returned_with_axes(value)


@pytest.mark.parametrize("plot", [returned_with_axes, returned, opened])
def test_a_figure_that_a_plot_makes_by_itself_is_the_picture(plot, tmp_path):
    """It is taken as it is, and pyplot has open what was open before, and nothing else."""
    from matplotlib import pyplot

    before = pyplot.figure()
    try:
        figure = draw(Odd(plot), SQUARE, "t")
        assert pyplot.get_fignums() == [before.number]
    finally:
        pyplot.close(before)
    figure.savefig(tmp_path / "x.png")
    assert [axes.images[0].get_array().tolist() for axes in figure.axes] == [SQUARE.tolist()]


def test_a_plot_on_the_current_figure_is_not_on_the_users():
    """Whether a figure is open in pyplot changes no picture; it stays as it was, and the current one."""
    from matplotlib import pyplot

    def current(value):
        pyplot.imshow(value)

    mine = pyplot.figure()
    try:
        figure = draw(Odd(current), SQUARE, "t")
        assert pyplot.get_fignums() == [mine.number]
        assert pyplot.gcf() is mine
        assert mine.axes == []
    finally:
        pyplot.close(mine)
    assert [axes.images[0].get_array().tolist() for axes in figure.axes] == [SQUARE.tolist()]


def test_metrics_of_torchmetrics_open_nothing_in_pyplot(monkeypatch):
    """Their ``plot`` draws on the axes that it gets: with a figure open, too, no window flashes up."""
    from matplotlib import pyplot

    mine = pyplot.figure()
    try:
        monkeypatch.setattr(pyplot, "figure", lambda *args, **kwargs: pytest.fail("opened"))
        assert texts(draw(MulticlassConfusionMatrix(2), SQUARE, "t")) == ["3", "1", "0", "4"]
    finally:
        pyplot.close(mine)


@pytest.mark.parametrize("result", [None, np.zeros((2, 2, 3)), "x.png"], ids=["nothing", "array", "string"])
def test_a_plot_that_draws_nothing_is_an_error(result):
    """It would be a blank picture, whatever it returns that is no figure; the error says where it may draw."""

    def blank(value, ax=None):
        ax.set_title("blank")
        return result

    with pytest.raises(ValueError, match="`plot` of Odd drew nothing, neither on the `ax`"):
        draw(Odd(blank), SQUARE, "t")


@pytest.mark.parametrize("words", [lambda ax: ax.text(0, 0, "hi"), lambda ax: ax.figure.text(0, 0, "hi")])
def test_a_plot_may_be_words_alone(words):
    """A text is something."""
    draw(Odd(lambda value, ax=None: words(ax)), SQUARE, "t")


def test_a_plot_that_fails_leaves_no_figure_open():
    """What it opened is closed."""
    from matplotlib import pyplot

    def failing(value, ax=None):
        pyplot.figure()
        raise ValueError("no paint")

    with pytest.raises(ValueError, match="no paint"):
        draw(Odd(failing), SQUARE, "t")
    assert pyplot.get_fignums() == []


def test_signs_that_the_font_lacks_are_their_codes(tmp_path):
    """Names stay apart, and matplotlib has nothing to warn of, however often a logger renders the picture."""
    names = ["日本", "日中"]
    matrix = draw(MulticlassConfusionMatrix(2), SQUARE, "val/日", names)
    lines = draw_history({name: {0: 0.5, 1: 1.0} for name in names}, "val/日")
    for figure in (matrix, lines, lines):
        figure.savefig(tmp_path / "x.png")
    codes = [r"\u65e5\u672c", r"\u65e5\u4e2d"]
    assert [label.get_text() for label in matrix.axes[0].get_xticklabels()] == codes
    assert legend(lines) == codes
    assert matrix.get_suptitle() == r"val/\u65e5"


def test_a_font_that_the_user_names_counts(monkeypatch):
    """Each font of matplotlib's setting stands in for the ones before; one that is not installed does not."""
    import matplotlib

    assert lacking("a日\N{MATHEMATICAL BOLD CAPITAL A}日") == "日\N{MATHEMATICAL BOLD CAPITAL A}"
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["no such font", "DejaVu Sans", "STIXGeneral"])
    assert lacking("a日\N{MATHEMATICAL BOLD CAPITAL A}") == "日"
    assert fonts() == "DejaVu Sans, STIXGeneral"


class Bare(Metric):
    """A metric of one's own, which has no ``plot``."""

    def update(self):
        pass

    def compute(self):
        pass


def test_a_matrix_of_a_metric_without_a_plot_is_an_image_with_a_colour_bar():
    """Its values are the image's; names stand where there are as many as rows or columns."""
    value = torch.arange(6.0).reshape(2, 3)
    figure = draw(Bare(), value, "val/x", LABELS)
    axes, bar = figure.axes
    assert axes.images[0].get_array().tolist() == value.tolist()
    assert bar.get_label() == "<colorbar>"
    assert [label.get_text() for label in axes.get_xticklabels()] == LABELS
    assert "ant" not in [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize(
    ("labels", "names"), [(None, ["0", "1", "2"]), (LABELS, LABELS), (LABELS[:2], ["0", "1", "2"])]
)
def test_a_vector_of_a_metric_without_a_plot_has_a_bar_for_each_value(labels, names):
    """From above, under the names where there are as many, otherwise under the indices."""
    (axes,) = draw(Bare(), tensor([0.5, 2.0, -1.0]), "val/x", labels).axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 2.0, -1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names


def test_a_long_vector_is_one_outline():
    """Thousands of values, one a row of the data, are drawn in no time, each at its index."""
    values = torch.arange(5000.0)
    (axes,) = draw(Bare(), values, "val/x").axes
    (outline,) = axes.collections
    corners = set(map(tuple, outline.get_paths()[0].vertices.tolist()))
    assert {(float(i), i + edge) for i in range(1, 4999) for edge in (-0.5, 0.5)} <= corners


@pytest.mark.parametrize("shape", [(0,), (0, 3)], ids=str)
@pytest.mark.parametrize("metric", [Bare(), MulticlassConfusionMatrix(3)], ids=["bare", "own"])
def test_an_empty_value_is_an_error_that_says_so(metric, shape):
    """There is nothing to draw, and nothing of numpy's or matplotlib's own about it."""
    with pytest.raises(ValueError, match=rf"the value is empty, its shape is \({shape[0]},"):
        draw(metric, torch.zeros(shape), "t")


INFINITE = [0.5, float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bars", ["vector", "epoch"])
def test_what_is_not_finite_has_no_bar_and_is_told_from_zero(bars, tmp_path):
    """It is said beside the name."""
    if bars == "vector":
        figure = draw(Bare(), tensor(INFINITE), "t")
    else:
        figure = draw_history({str(i): {0: value} for i, value in enumerate(INFINITE)}, "t")
    figure.savefig(tmp_path / "x.png")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "1: nan", "2: inf", "3: -inf"]
    np.testing.assert_array_equal([bar.get_width() for bar in axes.patches], [0.5, *[float("nan")] * 3])
    assert axes.get_ylim() == (3.5, -0.5)  # where each has its place


def test_cells_that_are_not_finite_can_be_read():
    """Their cells are white, and torchmetrics writes in white on what is dark or has no colour."""
    figure = draw(MulticlassConfusionMatrix(2), tensor(INFINITE).reshape(2, 2), "t")
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert [colours[word] for word in ("nan", "inf", "-inf")] == ["black"] * 3


@pytest.mark.parametrize("count", [2, 14, 100])
def test_titles_of_label_matrices_leave_each_other_room(count):
    """With long names, too, no two overlap and none leaves the picture."""
    labels = [f"the rather long name of a label, number {i}" for i in range(count)]
    figure = draw(MultilabelConfusionMatrix(count), torch.ones(count, 2, 2, dtype=torch.long), "t", labels)
    figure.draw_without_rendering()
    titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(titles) == count
    assert all(not one.overlaps(two) for one, two in pairwise(titles))
    assert min(one.x0 for one in titles) >= 0
    assert max(one.x1 for one in titles) <= figure.bbox.width


def test_a_title_that_is_too_long_keeps_its_ends():
    """It stays within the picture, and can be read."""
    figure = draw(MulticlassConfusionMatrix(2), SQUARE, f"val/{'x' * 400}/end")
    figure.draw_without_rendering()
    title = figure._suptitle
    assert title.get_text()[:5] == "val/x"
    assert title.get_text()[-4:] == "/end"
    assert title.get_fontsize() >= 5
    assert title.get_window_extent().x0 >= 0
    assert title.get_window_extent().x1 <= figure.bbox.width


NONE = [torch.zeros(2, 2, 2), ("a", "b"), torch.ones(3) * 1j]


@pytest.mark.parametrize("value", NONE, ids=["3d", "tuple", "complex"])
def test_what_is_neither_matrix_nor_vector_of_a_metric_without_a_plot_is_an_error_that_names_the_metric(value):
    """There is no way to draw it, and the error says whose it is."""
    with pytest.raises(NotImplementedError, match="Bare has no `plot`"):
        draw(Bare(), value, "t")


# Over epochs


def test_a_history_is_a_line_over_epochs():
    """Epochs are on the x axis, also where some are left out; every value is drawn."""
    figure = draw_history({None: {1: 0.5, 3: 0.75, 5: float("nan")}}, "val/acc")
    (axes,) = figure.axes
    assert axes.lines[0].get_xdata().tolist() == [1, 3, 5]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.5, 0.75, np.nan])
    assert (axes.get_xlabel(), figure.get_suptitle(), legend(figure)) == ("epoch", "val/acc", [])


def test_epochs_without_a_finite_value_are_on_the_axis():
    """A loss that became NaN does not look like a run that ended."""
    (axes,) = draw_history({None: {0: 1.0, 1: 0.5} | {i: float("nan") for i in range(2, 9)}}, "train/loss").axes
    low, high = axes.get_xlim()
    assert low < 0
    assert 8 < high < 9


@pytest.mark.parametrize("epochs", [[0], [7], [2, 3]], ids=str)
def test_few_epochs_are_whole_numbers_on_their_axis(epochs):
    """A single one, too, has a tick at itself and none between."""
    figure = draw_history({None: dict.fromkeys(epochs, 0.5)}, "val/acc")
    figure.draw_without_rendering()
    (axes,), (low, high) = figure.axes, figure.axes[0].get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == epochs


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_values_a_class_are_a_line_each(classes):
    """One picture has them all, with the names in the legend."""
    values = {f"class {i}": {0: float(i), 1: i + 0.5} for i in range(classes)}
    figure = draw_history(values, "val/acc")
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[i, i + 0.5] for i in range(classes)]
    assert legend(figure) == list(values)


def test_names_that_matplotlib_would_read_as_its_own_are_shown(tmp_path):
    """A dollar sign begins no formula, and a leading underscore hides nothing from a legend."""
    names = ["$a_{b$", "US$", "_background_"]
    history = draw_history({name: {0: 0.5, 1: float("inf")} for name in names}, "val/$x_{")
    bars = draw_history({name: {0: float("nan")} for name in names}, "val/$x_{")
    matrix = draw(MulticlassConfusionMatrix(3), torch.eye(3), "val/$x_{", names)
    for i, figure in enumerate((history, bars, matrix)):
        figure.savefig(tmp_path / f"{i}.png")
    assert [name.replace("\\", "").strip() for name in legend(history)] == names


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_values_a_class_of_one_epoch_are_bars(classes):
    """One point a line says little: each class has a bar, in order, under its name."""
    figure = draw_history({f"class {i}": {4: float(i)} for i in range(classes)}, "test/acc")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == list(range(classes))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"class {i}" for i in range(classes)]
    assert axes.get_xlabel() == "epoch 4"


def test_a_missing_matplotlib_is_an_error_that_says_what_to_install(monkeypatch):
    """Where matplotlib is absent the error names it and the extra that brings it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="matplotlib") as caught:
        draw(MulticlassConfusionMatrix(2), torch.eye(2), "t")
    assert "metric-mixin[plot]" in str(caught.value)
    assert isinstance(caught.value, ModuleNotFoundError)
