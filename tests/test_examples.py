"""The examples of the docs run as a user runs them."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def run(name, *args, folder):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(320)
def test_digits_reaches_its_accuracy_and_says_where_everything_lies(tmp_path):
    """Test accuracy of at least 0.97; the per-class table; log, checkpoint and picture exist where it says."""
    out = run("digits.py", folder=tmp_path)
    assert float(re.search(r"^acc +([\d.]+)$", out, re.M)[1]) >= 0.97
    rows = dict(re.findall(r"^(zero|one|two|three|four|five|six|seven|eight|nine) +([\d.]+)$", out, re.M))
    assert len(rows) == 10
    for what in ("log", "checkpoint", "picture"):
        assert (tmp_path / re.search(rf"^{what}: +(\S+)$", out, re.M)[1]).exists()
    with (tmp_path / "runs/digits/version_0/metrics.csv").open() as file:
        keys = set(csv.DictReader(file).fieldnames)
    assert {"epoch", "step", "val/acc_per_class/zero", "test/f1", "train/loss", "train/loss_step"} <= keys


@pytest.mark.timeout(320)
def test_digits_with_tensorboard(tmp_path):
    """The other options: few epochs, another seed, and TensorBoard, which takes the picture itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = run("digits.py", "--logger", "tensorboard", "--epochs", "1", "--seed", "3", folder=tmp_path)
    assert "picture:" not in out
    events = EventAccumulator(str(tmp_path / "runs/digits/version_0"))
    events.Reload()
    assert "test/confusion" in events.Tags()["images"]
    assert "test/acc_per_class/nine" in events.Tags()["scalars"]
    assert events.Scalars("val/acc")[0].step == events.Scalars("train/acc")[0].step


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_has_a_test(name):
    """An example that no test runs could rot; the one of several processes is run by ``test_strategies.py``."""
    tests = [Path(__file__), Path(__file__).with_name("test_strategies.py")]
    assert any(f'"{name}"' in test.read_text() for test in tests)
