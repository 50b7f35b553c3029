"""What is shipped and what is written about it agree: versions, targets of make, files, and what an import pulls in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import metric_mixin

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
BUG = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.md").read_text(encoding="utf-8")


# What an import pulls in


def new_packages(before, then):
    """Packages, others than Python's own, that ``then`` imports in a fresh process after ``before``."""
    code = (
        f"import sys\nimport {before}\nbefore = set(sys.modules)\nimport {then}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize("before", ["lightning.pytorch", "pytorch_lightning, lightning.pytorch"])
def test_an_import_pulls_in_nothing_but_ourselves(before):
    """After ``lightning.pytorch`` it is more of torchmetrics at most: no plots, loggers, scikit-learn or pandas."""
    assert new_packages(before, "metric_mixin, metric_mixin.testing") <= {"metric_mixin", "torchmetrics"}


def test_an_import_of_more_is_seen():
    """Control: a package that comes in beside it is found out."""
    assert "sklearn" in new_packages("lightning.pytorch", "metric_mixin, sklearn.metrics")


# Versions


def version(text):
    """The numbers of a version, without zeros at the end."""
    return tuple(map(int, text.split("."))) if not text.endswith(".0") else version(text[:-2])


def requirements(text, relation):
    """Names and versions of the requirements with one relation."""
    return {name: version(number) for name, number in re.findall(rf"([\w-]+){relation}(\d[\d.]*\d)", text)}


def test_the_lowest_versions_that_are_tried_are_those_of_pyproject():
    """Every lower bound of what is run or used in tests is the version that ``make versions`` installs."""
    wanted = PYPROJECT[PYPROJECT.index("\ndependencies = ") : PYPROJECT.index("\nzoo = ")]
    bounds = requirements(wanted, ">=")
    tools = {"mypy", "ruff"}  # which no test runs
    lowest = requirements((ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8"), "==")
    assert {"torch", "torchmetrics", "lightning", "matplotlib", "pytorch-lightning"} <= bounds.keys()
    assert {name: bound for name, bound in bounds.items() if name not in tools} == {
        name: pinned for name, pinned in lowest.items() if name in bounds
    }


def test_the_newest_versions_are_within_the_bounds_and_pinned():
    """What is called the newest is no older than the lowest, and each of the four packages has one version."""
    bounds = requirements(PYPROJECT, ">=")
    newest = requirements(re.search(r"^NEWEST \?= (.*)$", MAKEFILE, re.M)[1], "==")
    assert newest.keys() == {"torch", "torchvision", "torchmetrics", "lightning", "pytorch-lightning"}
    assert all(number > bounds[name] for name, number in newest.items() if name in bounds)


def test_every_python_that_is_named_is_tried_at_both_ends():
    """The lowest and the newest Python of the classifiers are those of ``make versions`` and of the workflow."""
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    ends = [pythons[0], pythons[-1]]
    assert re.findall(r"\.ci/find-python (3\.\d+)", MAKEFILE) == ends
    assert f'requires-python = ">={ends[0]}"' in PYPROJECT
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    (setup,) = (step for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert set(ends) <= set(setup["with"]["python-version"].split())


def test_the_citation_has_the_version_of_the_package():
    """Whoever cites the software cites what he has; the licence is that of the package."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == metric_mixin.__version__
    assert f'license = "{citation["license"]}"' in PYPROJECT
    assert citation["authors"] == [{"name": re.search(r'authors = \[\{ name = "(.*)" \}\]', PYPROJECT)[1]}]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format asks for


# What is written


def targets():
    """Targets of the Makefile that are commands."""
    return set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split())


def test_every_command_is_a_target_and_has_a_word_of_help():
    """What ``make help`` lists is what there is."""
    rules = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
    helped = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, re.M))
    assert rules == targets()
    assert targets() - helped == {"lint"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/pull_request_template.md"])
def test_a_page_names_only_targets_that_exist(page):
    """Each ``make`` in a line of code, or between backticks, has a target of the Makefile."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.M)
    assert named
    assert set(named) <= targets()


def test_the_workflow_runs_the_targets_that_exist():
    """Everything that decides on a change runs there: check, versions, package and docs."""
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    named = job["strategy"]["matrix"]["target"]
    assert set(named) == {"check", "versions", "package", "docs"} <= targets()
    assert {"run": "make ${{ matrix.target }}"} in job["steps"]


def test_contributing_names_every_file_of_the_package():
    """Whoever adds a step tells others where it stands; no file is named that does not exist."""
    package = ROOT / "metric_mixin"
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    tables = CONTRIBUTING[CONTRIBUTING.index("## The way of the data") : CONTRIBUTING.index("## How to add")]
    assert set(re.findall(r"`(\w+\.py)`", tables)) == files
    assert "`_families/`" in tables


def test_contributing_names_files_and_tests_that_exist():
    """Paths between backticks are there, and so is the test that is given as an example."""
    for path in re.findall(r"`((?:tests|docs|metric_mixin|\.ci)/[\w./-]+\.\w+)`", CONTRIBUTING):
        assert (ROOT / path).exists() or path == "tests/test_x.py", path
    file, name = re.search(r"pytest (tests/\w+\.py)::(\w+)", CONTRIBUTING).groups()
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_minimal_module_of_the_bug_template_runs(tmp_path, monkeypatch, capsys):
    """Who reports a fault starts from something that works."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", BUG, re.S | re.M)
    exec(compile(code, "bug.md", "exec"), {"__name__": "bug"})
    assert "val, epoch 0" in capsys.readouterr().out


def test_the_command_of_the_bug_template_prints_the_versions():
    """The four packages, Python and the system."""
    (command,) = re.findall(r'^```bash\npython -c "(.*)"\n^```$', BUG, re.M)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", command], capture_output=True, text=True, check=True)
    assert f"metric_mixin {metric_mixin.__version__}\n" in done.stdout
    assert re.search(r"^torch \d.*\ntorchmetrics \d.*\nlightning \d", done.stdout, re.M)


# Pythons


def found(wanted, **environment):
    """What ``.ci/find-python`` prints, and what it says."""
    done = subprocess.run(
        ["sh", str(ROOT / ".ci" / "find-python"), wanted], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip(), done.stderr


def python_of(folder, version, name):
    """A script that answers as a Python of some version, or, as a shim without one does, with an error."""
    folder.mkdir(parents=True)
    script = folder / name
    script.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n")
    script.chmod(0o755)
    return script


@pytest.mark.skipif(sys.platform == "win32", reason="a script of sh, as make is")
def test_a_python_is_found_on_the_path_behind_a_shim_that_does_not_run(tmp_path):
    """The first that runs and has the version is taken; a folder's name may have a space."""
    python_of(tmp_path / "shims", None, "python9.9")
    wanted = python_of(tmp_path / "with space", "9.9", "python9.9")
    path = f"{tmp_path / 'shims'}:{tmp_path / 'with space'}:/usr/bin:/bin"
    assert found("9.9", PATH=path, HOME=str(tmp_path)) == (str(wanted), f"Python 9.9: {wanted}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a script of sh, as make is")
def test_a_python_of_pyenv_is_found_and_another_version_is_not(tmp_path):
    """9.9.1 is a 9.9, and 9.90.1 is none; where there is none the default is taken, and that is said."""
    versions = tmp_path / ".pyenv" / "versions"
    python_of(versions / "9.90.1" / "bin", "9.90", "python")
    default = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHON": sys.executable}
    python, said = found("9.9", **default)
    assert python == sys.executable
    assert said.startswith("There is NO Python 9.9 here; instead of it: ")
    wanted = python_of(versions / "9.9.1" / "bin", "9.9", "python")
    assert found("9.9", **default)[0] == str(wanted)
