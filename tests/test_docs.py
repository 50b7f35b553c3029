"""Every Python block of the README and of each page of the docs runs, page by page, as a reader would type it."""

import re
from pathlib import Path

import pytest

from tests.support import needs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.S | re.M)


def files(page):
    """The files that a page shows: name and text of each block with a title."""
    return re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', page.read_text(), re.S | re.M)


def packages(page):
    """The packages that a page says, in a comment, its code needs beside those of the development environment."""
    return re.findall(r"[\w-]+", "".join(re.findall(r"^<!-- needs: (.*) -->$", page.read_text(), re.M)))


RUNNING = [page for page in PAGES if blocks(page)]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def is_shown(shown, printed):
    """Whether the words stand in the output, with numbers that another version of torch may move by a twentieth."""
    words = [re.escape(part) for part in NUMBER.split(shown)]
    found = re.search(r"(\d+(?:\.\d+)?)".join(words), printed)
    numbers = NUMBER.findall(shown)
    return found is not None and [float(n) for n in found.groups()] == pytest.approx(
        [float(n) for n in numbers], abs=0.05, rel=0.05
    )


def test_the_comparison_of_output_can_fail():
    """Control: other words, other numbers or a missing line are found."""
    assert is_shown("acc 0.97", "loss 1\nacc 0.98\n")
    assert not any(is_shown(shown, "acc 0.97\n") for shown in ("acc 0.57", "accuracy 0.97", "acc 0.97\nloss 1"))


@pytest.fixture
def run_page(tmp_path, monkeypatch, capsys):
    """Run the blocks of a page in one namespace, and see that they print what stands in its ``text`` blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["page"])
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")

    def run(page):
        for name, text in files(page):
            Path(name).write_text(text)
        namespace = {"__name__": "page"}
        for code in blocks(page):
            exec(compile(code, str(page), "exec"), namespace)
        printed = capsys.readouterr().out
        for shown in blocks(page, "text"):
            assert is_shown(shown.strip(), printed), f"shown:\n{shown}\nprinted:\n{printed[-2000:]}"

    return run


@pytest.mark.filterwarnings("ignore::metric_mixin.MetricMixinWarning")
@pytest.mark.parametrize("page", [p for p in RUNNING if not packages(p)], ids=lambda page: page.name)
def test_code_on_a_page_runs_and_prints_what_stands_below_it(page, run_page):
    """The blocks of a page run in one namespace; the output is that of the ``text`` blocks behind them."""
    run_page(page)


@pytest.mark.filterwarnings("ignore::metric_mixin.MetricMixinWarning")
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=needs(*packages(p)), id=p.name) for p in RUNNING if packages(p)],
)
def test_code_on_a_page_that_needs_packages(page, run_page):
    """Likewise, for a page that says which packages it needs; ``make zoo`` has them all."""
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_are_alive(page):
    """A relative link leads to a file of the repository."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
