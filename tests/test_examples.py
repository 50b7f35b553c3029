"""The examples of the docs run as a user runs them."""

import contextlib
import csv
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn import metrics as reference

from tests.support import needs, unlined

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def started(name, *args, folder):
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # nets this small only wait for further threads
    alone["COLUMNS"] = "200"  # where rich is installed, Lightning's table cuts long keys to the width of the terminal
    command = [sys.executable, str(EXAMPLES / name), *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=alone)


def run(name, *args, folder):
    done = started(name, *args, folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def imported(name):
    """The file of an example as a module, under its own name."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(printed):
    """The numbers of each line of a report, by its first word."""
    lines = re.findall(r"^(\S+)((?: +-?[\d.]+)+)$", printed, re.M)
    assert lines, printed
    return {name: [float(number) for number in numbers.split()] for name, numbers in lines}


def report(printed, stage):
    """The last report of a stage, as far as the next one or a line that says where something lies."""
    return table(
        re.split(r"^(?:train|val|test), epoch|^best |^\w+: ", printed.split(f"\n{stage}, epoch")[-1], flags=re.M)[0]
    )


def trained(kind, printed, folder):
    """The module of the checkpoint that an example names, ready to be asked."""
    path = folder / re.search(r"^checkpoint: +(\S+)$", printed, re.M)[1]
    return kind.load_from_checkpoint(path, map_location="cpu").eval()


def close(*expected):
    """Numbers of a report, which has four decimals."""
    return pytest.approx([float(number) for number in expected], abs=1e-4)


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


@pytest.mark.timeout(320)
def test_diabetes_measures_as_scikit_learn_does(tmp_path):
    """Each value of the test's report is scikit-learn's, recomputed from the checkpoint; a mean would have R2 of 0."""
    out = run("diabetes.py", folder=tmp_path)
    example = imported("diabetes")
    patients, score = example.diabetes(seed=0)[2].tensors
    model = trained(example.LitDiabetes, out, tmp_path)
    with torch.no_grad():
        found = model(patients).numpy()
    score = score.numpy()
    rows = report(out, "test")
    assert rows["mae"] == close(reference.mean_absolute_error(score, found))
    assert rows["rmse"] == close(reference.mean_squared_error(score, found) ** 0.5)
    assert rows["r2"] == close(reference.r2_score(score, found))
    assert rows["pearson"] == close(np.corrcoef(score, found)[0, 1])
    error, scale = np.abs(score.astype(float) - found), model.hparams.scale
    huber = np.where(error < scale, error**2 / 2, scale * (error - scale / 2)).mean()
    assert rows["loss"] == pytest.approx([huber], rel=1e-5)
    assert rows["r2"][0] > 0.3
    best = re.search(r"^mae +([\d.]+) +\d+$", out.split("best ")[1], re.M)
    with (tmp_path / "runs/diabetes/version_0/metrics.csv").open() as file:
        assert [float(best[1])] == close(min(float(row["val/mae"]) for row in csv.DictReader(file) if row["val/mae"]))


@pytest.mark.timeout(320)
def test_wine_measures_what_its_yaml_names(tmp_path):
    """fit, then test from its checkpoint: each dataloader's values, and those of both, are scikit-learn's."""
    config = ("--config", str(EXAMPLES / "wine.yaml"))
    out = run("wine.py", "fit", *config, folder=tmp_path)
    assert report(out, "val")["acc"][2] > 0.9
    assert (tmp_path / "runs/wine/version_0/figures/val/confusion").is_dir()
    path = re.search(r"^checkpoint: +(\S+)$", out, re.M)[1]
    tested = run("wine.py", "test", *config, "--ckpt_path", path, folder=tmp_path)

    example = imported("wine")
    model = trained(example.LitWine, out, tmp_path)
    data = example.Wines()
    data.setup("test")
    found, grower = [], []
    with torch.no_grad():
        for loader in data.test_dataloader():
            inputs, target = (torch.stack(column) for column in zip(*loader.dataset, strict=True))
            found.append(model(inputs).argmax(1).numpy())
            grower.append(target.numpy())
    found.append(np.concatenate(found))
    grower.append(np.concatenate(grower))
    pairs = list(zip(grower, found, strict=True))
    assert report(tested, "test")["acc"] == close(*(reference.accuracy_score(*pair) for pair in pairs))
    printed = re.findall(r"test/(\S*)(recall|precision)/(first|second|third) +([\d.]+)", unlined(tested))
    scores = {"recall": reference.recall_score, "precision": reference.precision_score}
    places = {"light/": 0, "strong/": 1, "": 2}
    assert len(printed) == 18
    for loader, name, label, value in printed:
        of_each = scores[name](*pairs[places[loader]], labels=[0, 1, 2], average=None, zero_division=0)
        assert [float(value)] == close(of_each[["first", "second", "third"].index(label)])


@pytest.mark.timeout(320)
def test_segmentation_counts_the_pixels_that_are_no_edge(tmp_path):
    """Accuracy, overlap and loss are those over all pixels that are not ignored, from scikit-learn and by hand."""
    out = run("segmentation.py", folder=tmp_path)
    example = imported("segmentation")
    pictures, labels = example.shapes(40, seed=1).tensors
    with torch.no_grad():
        outputs = trained(example.LitShapes, out, tmp_path)(pictures)
    counts = labels != 255
    assert 0.02 < 1 - counts.double().mean() < 0.3
    truth, found = labels[counts].numpy(), outputs.argmax(1)[counts].numpy()
    overlap = reference.jaccard_score(truth, found, average=None)
    rows = report(out, "val")
    assert rows["acc"] == close(reference.accuracy_score(truth, found))
    assert rows["iou"] == close(overlap.mean())
    assert [rows[name][0] for name in ("background", "disc", "bar")] == close(*overlap)
    log_odds = outputs.double().log_softmax(1).movedim(1, -1)[counts].numpy()
    with (tmp_path / "runs/segmentation/version_0/metrics.csv").open() as file:
        loss = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]][-1]
    assert loss == pytest.approx(-log_odds[np.arange(len(truth)), truth].mean(), rel=3e-6)
    assert overlap.min() > 0.7
    pictures = re.findall(r"^picture: +(\S+)$", out, re.M)
    assert {Path(path).parent.name for path in pictures} == {"confusion", "iou_per_class"}
    assert all((tmp_path / path).read_bytes().startswith(b"\x89PNG") for path in pictures)


@needs("torchvision", "pycocotools")
@pytest.mark.timeout(320)
def test_boxes_measures_as_pycocotools_does(tmp_path):
    """Mean average precision, over all and for each class, is pycocotools' own of the checkpoint's boxes."""
    out = run("boxes.py", folder=tmp_path)
    example = imported("boxes")
    drawn = example.pictures(80, seed=1)
    model = trained(example.LitBoxes, out, tmp_path)
    with torch.no_grad():
        found = model.boxes(model(example.collate(drawn)[0]))
    rows = report(out, "val")
    expected = coco_precision([target for _, target in drawn], found, classes=2)
    assert [rows["box/map"][0], rows["wide"][0], rows["tall"][0]] == close(*expected)
    assert rows["box/map_50"][0] > 0.8


def coco_precision(truth, found, classes):
    """pycocotools' precision over all thresholds of overlap: the mean, and that of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entries(images, scores):
        for image, one in enumerate(images):
            for i, (x0, y0, x1, y1) in enumerate(one["boxes"].double().tolist()):
                box = {"image_id": image, "category_id": int(one["labels"][i]), "bbox": [x0, y0, x1 - x0, y1 - y0]}
                extra = {"score": float(one["scores"][i])} if scores else {"iscrowd": 0}
                yield box | extra | {"area": (x1 - x0) * (y1 - y0)}

    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = {
            "images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": i} for i in range(classes)],
            "annotations": [{"id": i + 1, **one} for i, one in enumerate(entries(truth, scores=False))],
        }
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(list(entries(found, scores=True))), "bbox")
        evaluation.params.iouThrs = np.array(
            torch.linspace(0.5, 0.95, 10).tolist()
        )  # torchmetrics', rounded to float32
        evaluation.params.recThrs = np.array(torch.linspace(0, 1, 101).tolist())
        evaluation.evaluate()
        evaluation.accumulate()
    of_each = evaluation.eval["precision"][:, :, :, 0, 2].mean((0, 1))  # every size of box, 100 boxes a picture
    return of_each.mean(), *of_each


def test_boxes_says_which_packages_it_needs(tmp_path):
    """Without them it ends with their names and the command that installs them, and no traceback."""
    hide = tmp_path / "hidden.py"
    hide.write_text(
        "import importlib.util, runpy, sys\n"
        "there = importlib.util.find_spec\n"
        "absent = 'torchvision', 'pycocotools'\n"
        "importlib.util.find_spec = lambda name, *more: None if name in absent else there(name, *more)\n"
        f"runpy.run_path({str(EXAMPLES / 'boxes.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, str(hide)], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "This example needs torchvision and pycocotools: pip install torchvision pycocotools"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(320)
def test_two_tasks_measures_each(tmp_path):
    """Growers as classes and alcohol as a number, each by scikit-learn; the loss is the sum of both tasks'."""
    out = run("two_tasks.py", folder=tmp_path)
    example = imported("two_tasks")
    val = example.wines(seed=0)[1]
    wines = {name: torch.stack([row[name] for row in val]) for name in ("wine", "grower", "alcohol")}
    with torch.no_grad():
        outputs = trained(example.LitWine, out, tmp_path)(wines["wine"])
    grower, alcohol = wines["grower"].numpy(), wines["alcohol"].numpy()
    recall = reference.recall_score(grower, outputs["grower"].argmax(1).numpy(), average=None)
    rows = report(out, "val")
    assert rows["task/grower/acc"] == close(recall.mean())
    assert [rows[name][0] for name in ("first", "second", "third")] == close(*recall)
    assert rows["task/alcohol/mae"] == close(reference.mean_absolute_error(alcohol, outputs["alcohol"].numpy()))
    assert rows["task/alcohol/r2"] == close(reference.r2_score(alcohol, outputs["alcohol"].numpy()))
    entropy = reference.log_loss(grower, outputs["grower"].double().softmax(1).numpy())
    assert rows["loss"] == close(entropy + reference.mean_squared_error(alcohol, outputs["alcohol"].numpy()))
    assert recall.min() > 0.8
    assert rows["task/alcohol/r2"][0] > 0.2


@pytest.mark.timeout(320)
def test_two_dataloaders_measures_each_and_both(tmp_path):
    """Accuracy and loss of each dataloader and of all rows; with 540 and 180 rows, no mean of the two."""
    out = run("two_dataloaders.py", folder=tmp_path)
    example = imported("two_dataloaders")
    clean, noisy = (data.tensors for data in example.digits(seed=0, noise=0.3)[1:])
    model = trained(example.LitDigits, out, tmp_path)
    parts = [clean, noisy, tuple(torch.cat(both) for both in zip(clean, noisy, strict=True))]
    with torch.no_grad():
        logits = [(model(images).double().numpy(), target.numpy()) for images, target in parts]
    accuracy = [reference.accuracy_score(target, one.argmax(1)) for one, target in logits]
    rows = report(out, "val")
    assert rows["rows"] == [540, 180, 720]
    assert rows["acc"] == close(*accuracy)
    assert rows["loss"] == close(*(reference.log_loss(target, softmax(one, axis=1)) for one, target in logits))
    assert accuracy[0] > 0.95 > accuracy[1] > 0.8
    assert abs(accuracy[2] - sum(accuracy[:2]) / 2) > 0.01
    assert list((tmp_path / "runs/two_dataloaders").glob("**/figures/val/noisy/confusion/*.png"))


@pytest.mark.timeout(320)
def test_manual_optimisation_measures_what_it_draws(tmp_path):
    """The distance of drawn digits from real ones equals numpy's, and falls to a third; train's rows are all there."""
    out = run("manual_optimisation.py", folder=tmp_path)
    example = imported("manual_optimisation")
    (real,) = example.digits(seed=0)[1].tensors
    model = trained(example.LitDraw, out, tmp_path)
    with torch.no_grad():
        drawn = torch.cat([model(len(rows), seed=i) for i, rows in enumerate(real.split(128))])
    real, drawn = real.double().numpy(), drawn.double().numpy()
    covariance, other = np.cov(real, rowvar=False), np.cov(drawn, rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    roots = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    distance = ((real.mean(0) - drawn.mean(0)) ** 2).sum() + np.trace(covariance + other) - 2 * roots
    before, after = report(out.split("\ntrain, epoch")[0], "val"), report(out, "val")
    assert after["frechet"] == pytest.approx([distance], abs=1e-3)
    assert after["frechet"][0] < before["frechet"][0] / 3
    train = report(out, "train")
    assert set(train) == {"draw_loss", "judge_loss", "judge_acc"}
    assert 0.5 < train["judge_acc"][0] < 1
    assert "1257 rows" in out


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_has_a_test(name):
    """An example that no test runs could rot; the one of several processes is run by ``test_strategies.py``."""
    tests = [Path(__file__), Path(__file__).with_name("test_strategies.py")]
    assert any(f'"{name}"' in test.read_text() for test in tests)
