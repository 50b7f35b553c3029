"""Every Python block of the README and of each page of the docs runs, page by page, as a reader would type it.

And nothing is missing: links and anchors are alive, each page is in the navigation, each public name in the reference.
"""

import importlib
import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import metric_mixin
from metric_mixin import MetricLogging, testing
from tests.support import needs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def page_id(page):
    return page.relative_to(ROOT).as_posix()


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
    numbers = [float(n) for n in NUMBER.findall(shown)]
    found = re.finditer(r"(\d+(?:\.\d+)?)".join(words), printed)
    return any([float(n) for n in one.groups()] == pytest.approx(numbers, abs=0.05, rel=0.05) for one in found)


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

    yield run
    if "wandb" in sys.modules:  # end its helper process
        sys.modules["wandb"].teardown()


@pytest.mark.filterwarnings("ignore::metric_mixin.MetricMixinWarning")
@pytest.mark.parametrize("page", [p for p in RUNNING if not packages(p)], ids=page_id)
def test_code_on_a_page_runs_and_prints_what_stands_below_it(page, run_page):
    """The blocks of a page run in one namespace; the output is that of the ``text`` blocks behind them."""
    run_page(page)


@pytest.mark.filterwarnings("ignore::metric_mixin.MetricMixinWarning")
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=needs(*packages(p)), id=page_id(p)) for p in RUNNING if packages(p)],
)
def test_code_on_a_page_that_needs_packages(page, run_page):
    """Likewise, for a page that says which packages it needs; ``make zoo`` has them all."""
    run_page(page)


def text_of(page):
    """A page without its code, and with what it includes."""
    text = page.read_text()
    for name in re.findall(r'^--8<-- "(.+)"$', text, re.M):
        text += (ROOT / name).read_text()
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def anchors(page):
    """The anchors of a page's headings, as Python-Markdown makes them, and those that mkdocstrings puts there."""
    text = text_of(page)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in re.findall(r"^#+ (.+)$", text, re.M)]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain} | set(re.findall(r"^::: (\S+)$", text, re.M))


def dead_links(page):
    dead = []
    for target in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_are_alive(page):
    """A relative link leads to a file of the repository, and to a heading or a name in it."""
    assert dead_links(page) == []


def test_the_search_for_dead_links_can_fail(tmp_path):
    """Control: a missing file and a missing heading are found, a present one is not."""
    (tmp_path / "other.md").write_text("# One\n\n## `a`, and b\n")
    page = tmp_path / "page.md"
    page.write_text("# Two\n[x](other.md#a-and-b) [x](#two) [x](gone.md) [x](other.md#c) [x](#one)\n")
    assert dead_links(page) == ["gone.md", "other.md#c", "#one"]


def test_pages_in_the_navigation():
    """The navigation has every page once."""
    nav = (ROOT / ".mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r"(\S+\.md)$", nav, re.M)) == sorted(
        p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")
    )


def test_how_to_pages_in_their_table():
    """The table of the how-to pages has every one of them."""
    table = (DOCS / "howto" / "index.md").read_text()
    pages = {path.name for path in (DOCS / "howto").glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", table)) == pages


def test_public_names_in_the_reference():
    """The reference has each public name once; beside them only classes whose objects public ones give."""
    shown = re.findall(r"^::: (\S+)$", (DOCS / "reference.md").read_text(), re.M)
    of_testing = [
        name
        for name, one in vars(testing).items()
        if not name.startswith("_") and (inspect.isclass(one) or inspect.isfunction(one))
        if one.__module__ == testing.__name__
    ]
    public = [f"metric_mixin.{name}" for name in metric_mixin.__all__ if not name.startswith("_")]
    public += [f"metric_mixin.testing.{name}" for name in of_testing]
    assert sorted(set(public) - set(shown)) == []
    assert len(set(shown)) == len(shown)
    for path in set(shown) - set(public):
        module, _, name = path.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(module), name)), path


def test_options_on_the_first_page():
    """The table of options has each of them, with its default."""
    text = (DOCS / "index.md").read_text()
    rows = dict(
        re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (`.+?`(?:, `.+?`)*) \| ", text.partition("## Options")[2], re.M)
    )
    shown = {}
    for names, defaults in rows.items():
        values = defaults.strip("`").split("`, `")
        names = names.strip("`").split("`, `")
        shown |= dict(zip(names, values * (len(names) if len(values) == 1 else 1), strict=True))
    default = MetricLogging()
    assert shown == {f.name: repr(getattr(default, f.name)).replace("'", '"') for f in fields(MetricLogging)}
