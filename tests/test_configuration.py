"""Metrics and options from a configuration: LightningCLI's YAML, hyperparameters in checkpoints, Hydra."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI, instantiate_class
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from omegaconf import OmegaConf
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import MetricLogging, MetricMixinWarning, OptionError
from tests.support import Lit, data, loader, make_trainer

LABELS = ["ant", "bee", "cat"]
CLASSWISE = {
    "class_path": "torchmetrics.wrappers.ClasswiseWrapper",
    "init_args": {
        "metric": {
            "class_path": "torchmetrics.classification.MulticlassRecall",
            "init_args": {"num_classes": 3, "average": None},
        },
        "labels": LABELS,
    },
}
METRICS = {
    "acc": {
        "class_path": "torchmetrics.classification.MulticlassAccuracy",
        "init_args": {"num_classes": 3, "average": "micro"},
    },
    "recall": CLASSWISE,
}


class Configured(Lit):
    """A module as a user of LightningCLI writes it."""

    def __init__(
        self,
        metrics: dict[str, Callable[[], Metric]],
        metric_logging: MetricLogging = MetricLogging(),
        lr: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.metrics, self.metric_logging = metrics, metric_logging

    def configure_metrics(self):
        return {name: make() for name, make in self.metrics.items()}


class OrNone(Configured):
    """The same, where no options are given as ``None``."""

    def __init__(self, metrics: dict[str, Callable[[], Metric]], metric_logging: MetricLogging | None = None) -> None:
        super().__init__(metrics, metric_logging or MetricLogging())


@pytest.fixture(autouse=True)
def _no_words(monkeypatch):
    """LightningCLI minds words behind the name of the script, which here are pytest's."""
    monkeypatch.setattr("sys.argv", ["script.py"])


@pytest.fixture
def config(tmp_path):
    """Write a configuration with some options, and return its path."""

    def write(options: Any = None, metrics: Any = METRICS) -> str:
        path = tmp_path / "config.yaml"
        model = {"metrics": metrics} | ({} if options is None else {"metric_logging": options})
        trainer = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 1}
        path.write_text(yaml.safe_dump({"trainer": trainer, "model": model}))
        return str(path)

    return write


def cli(path: str, *args: str, run: bool = False, module: Any = Configured) -> LightningCLI:
    """LightningCLI as a script makes it, without a file of its own that it writes."""
    words = [*(["fit"] if run else []), "--config", path, *args]
    return LightningCLI(module, args=words, run=run, save_config_callback=None, seed_everything_default=0)


# LightningCLI

OPTIONS = [
    ("prog_bar", ["val/acc", "*/loss"]),
    ("prog_bar", []),
    ("figures", ["*/confusion"]),
    ("figures_every_n_epochs", 3),
    ("track_best", {"val/acc": "max", "val/loss": "min", "val/recall/ant": "auto"}),
    ("class_names", LABELS),
    ("class_names", {"acc*": LABELS, "recall": None}),
    ("class_names", None),
    ("val_loaders", ["day", "night"]),
    ("test_loaders", ["day"]),
    ("pooled", True),
    ("exact_eval", False),
    *[("on_empty", value) for value in ("skip", "nan", "raise")],
    *[("on_error", value) for value in ("raise", "warn")],
    ("checkpoint_states", False),
    *[("metric_dtype", value) for value in ("float64", "torch.bfloat16")],
]


@pytest.mark.parametrize("module", [Configured, OrNone])
@pytest.mark.parametrize("spelt", ["plain", "class_path"])
@pytest.mark.parametrize(("option", "value"), OPTIONS, ids=str)
def test_an_option_in_yaml_equals_the_one_in_code(option, value, spelt, module, config):
    """Each option, in both spellings of a YAML, makes the object that code makes."""
    options = {option: value}
    if spelt == "class_path":
        options = {"class_path": "metric_mixin.MetricLogging", "init_args": options}
    assert cli(config(options), module=module).model.metric_logging == MetricLogging(**{option: value})


def test_every_option_is_tried_in_yaml():
    """Control: an option that is added must be added to the list above."""
    assert {option for option, _ in OPTIONS} == {field.name for field in dataclasses.fields(MetricLogging)}


SOME = {"prog_bar": ["val/acc"], "track_best": {"val/acc": "max"}, "class_names": LABELS}


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("pooled=true", {"pooled": True}),
        ("metric_dtype=float64", {"metric_dtype": torch.float64}),
        ("figures=[acc,'*/loss']", {"figures": ("acc", "*/loss")}),
        ("prog_bar+=val/loss", {"prog_bar": ("val/acc", "val/loss")}),
        ("track_best={val/loss: min}", {"track_best": {"val/loss": "min"}}),
        ("track_best.val/loss=min", {"track_best": {"val/acc": "max", "val/loss": "min"}}),
        ("class_names=null", {"class_names": None}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_one_option_at_the_command_line_leaves_the_others(word, changed, config):
    """What the command line says replaces, adds to or extends one option of the file."""
    model = cli(config(SOME), f"--model.metric_logging.{word}").model
    assert model.metric_logging == dataclasses.replace(MetricLogging(**SOME), **changed)


def test_a_metric_at_the_command_line(config):
    """An argument of a metric of the file, and one more metric, are given at the command line."""
    more = "{class_path: torchmetrics.classification.MulticlassF1Score, init_args: {num_classes: 3}}"
    words = ["--model.metrics.acc.init_args.top_k=2", f"--model.metrics.f1={more}"]
    metrics = cli(config(), *words).model.configure_metrics()
    assert list(metrics) == ["acc", "recall", "f1"]
    assert metrics["acc"].top_k == 2
    assert metrics["acc"].average == "micro"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"figures_every_n_epochs": 0}, r"figures_every_n_epochs=0\): expected a whole number of at least 1"),
        ({"metric_dtype": "int64"}, r"metric_dtype='int64'\): expected a floating-point torch.dtype"),
        ({"metric_dtype": "float99"}, r"metric_dtype='float99'\): expected a floating-point torch.dtype"),
        ({"class_names": ["a", "a"]}, "a name of its own for each class; 'a' occurs twice"),
        ({"val_loaders": ["a", "a"]}, r"val_loaders=\['a', 'a'\]\): expected a name for each dataloader"),
        ({"prog_bar": [""]}, r"prog_bar=\[''\]\): expected a tuple or list of non-empty strings"),
    ],
    ids=lambda one: str(one) if isinstance(one, dict) else "",
)
def test_a_value_of_the_right_type_that_cannot_be_is_our_error(options, said, config):
    """What a parser of types lets through is the error that code gets, with option, value and what was expected."""
    with pytest.raises(OptionError, match=said):
        cli(config(options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fgures": ["acc"]}, r"fgures"),
        ({"figures": "acc"}, r"figures(.|\n)*Got value: acc"),
        ({"figures_every_n_epochs": "often"}, r"figures_every_n_epochs(.|\n)*Got value: often"),
        ({"track_best": {"val/acc": "best"}}, r"track_best(.|\n)*'max', 'min', 'auto'(.|\n)*Got value: best"),
        ({"on_empty": "warn"}, r"on_empty(.|\n)*'skip', 'nan', 'raise'(.|\n)*Got value: warn"),
        ({"pooled": "maybe"}, r"pooled(.|\n)*Got value: maybe"),
    ],
    ids=lambda one: str(one) if isinstance(one, dict) else "",
)
def test_a_wrong_name_or_type_ends_the_command_with_its_name(options, said, config, capsys):
    """The parser names the key, what it expected and what came, before anything is made."""
    with pytest.raises(SystemExit):
        cli(config(options))
    assert re.search(said, capsys.readouterr().err.split("error:")[-1])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"class_path": "torchmetrics.classification.MulticlassAcuracy"}, "MulticlassAcuracy"),
        (METRICS["acc"] | {"init_args": {"num_classes": 3, "averag": "micro"}}, "averag"),
        ({"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}, "Linear"),
    ],
    ids=["class", "argument", "no-metric"],
)
def test_a_metric_that_cannot_be_made_ends_the_command(metric, said, config, capsys):
    """Class and arguments of a metric are checked when the configuration is read, not in the first epoch."""
    with pytest.raises(SystemExit):
        cli(config(metrics={"acc": metric}))
    assert said in capsys.readouterr().err.split("error:")[-1]


def test_a_metric_without_an_argument_that_it_needs_is_an_error_before_training(config):
    """A factory may be given arguments later, so that the parser lets it through; making the metric does not."""
    made = cli(config(metrics={"acc": {"class_path": "torchmetrics.classification.MulticlassAccuracy"}}))
    made.model.training_step = lambda *args: pytest.fail("training began")
    with pytest.raises(ValueError, match="num_classes"):
        made.trainer.fit(made.model, loader(), loader())


def test_a_pattern_of_the_yaml_that_matches_nothing_is_said(config):
    """As in code, with the closest names."""
    made = cli(config({"prog_bar": ["val/ac"]}), "--trainer.enable_progress_bar=false")
    with pytest.warns(MetricMixinWarning, match=r"prog_bar=.*'val/ac' matches no metric; the closest: 'val/acc'"):
        made.trainer.fit(made.model, loader(), loader())


def test_what_print_config_prints_makes_the_same_again(config, tmp_path, capsys):
    """The printed configuration has every option, and read back gives the same options and metrics."""
    path = config(SOME | {"metric_dtype": "float64"})
    with pytest.raises(SystemExit) as end:
        cli(path, "--print_config")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    first, second = cli(path).model, cli(str(again)).model
    assert first.metric_logging == second.metric_logging == MetricLogging(**SOME, metric_dtype="float64")
    assert set(yaml.safe_load(printed)["model"]["metric_logging"]) == {
        f.name for f in dataclasses.fields(MetricLogging)
    }
    assert first.hparams == second.hparams
    assert {name: type(m) for name, m in second.configure_metrics().items()} == {
        "acc": MulticlassAccuracy,
        "recall": ClasswiseWrapper,
    }


def test_fit_save_and_load_from_checkpoint(config, tmp_path):
    """U4: fit by the command line; the checkpoint has plain values, and makes the same module with the same results."""
    path = config(SOME)
    module = type("Fitted", (Configured,), {"train_dataloader": _loader, "val_dataloader": _loader})
    words = ["--trainer.max_epochs=2", "--trainer.enable_checkpointing=true", "--trainer.enable_progress_bar=false"]
    words += [f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_model_summary=false"]
    done = cli(path, *words, run=True, module=module)
    checkpoint = done.trainer.checkpoint_callback.best_model_path

    saved = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    assert saved["metrics"]["recall"]["class_path"].endswith(".ClasswiseWrapper")
    assert saved["metrics"]["acc"]["init_args"]["average"] == "micro"
    assert saved["metric_logging"]["class_names"] == LABELS

    loaded = load(module, checkpoint, weights_only=True)
    assert loaded.metric_logging == MetricLogging(**SOME)
    (result,) = make_trainer(tmp_path).validate(loaded, loader(), verbose=False)
    logged = {key: value.item() for key, value in done.trainer.callback_metrics.items()}
    assert result == pytest.approx({key: logged[key] for key in result})
    x, y = data()
    with torch.no_grad():
        found = loaded(x).argmax(1)
    assert result["val/acc"] == pytest.approx((found == y).double().mean().item())
    for i, label in enumerate(LABELS):
        assert result[f"val/recall/{label}"] == pytest.approx((found[y == i] == i).double().mean().item())


def test_the_module_may_be_chosen_in_the_yaml(tmp_path):
    """With ``subclass_mode_model`` the file names the module too; metrics and options are below its ``init_args``."""
    model = {"class_path": f"{__name__}.Configured", "init_args": {"metrics": METRICS, "metric_logging": SOME}}
    path = tmp_path / "chosen.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"accelerator": "cpu", "logger": False}, "model": model}))
    words = ["--config", str(path), "--model.init_args.metric_logging.pooled=true"]
    made = LightningCLI(
        Lit, args=words, run=False, subclass_mode_model=True, save_config_callback=None, seed_everything_default=0
    )
    assert made.model.metric_logging == MetricLogging(**SOME, pooled=True)
    assert list(made.model.configure_metrics()) == ["acc", "recall"]


def _loader(self):
    return loader()


def load(module, path, *, weights_only):
    """``load_from_checkpoint``, which has ``weights_only`` from Lightning 2.6 on."""
    takes = "weights_only" in inspect.signature(LightningModule.load_from_checkpoint).parameters
    return module.load_from_checkpoint(path, **({"weights_only": weights_only} if takes else {}))


def test_a_metric_in_a_metric_belongs_to_one_stage(config):
    """The command line makes an inner metric once, for all that its factory hands out; each stage has its own."""
    model = cli(config()).model
    assert model.metrics["recall"]().metric is model.metrics["recall"]().metric  # what is seen through
    x, y = torch.eye(3), torch.arange(3)
    model.update_metrics(x, y, stage="train")
    model.update_metrics(x.roll(1, 0), y, stage="val")
    assert model.train_metrics.compute()["recall/ant"] == 1
    assert model.val_metrics.compute()["recall/ant"] == 0


# Hyperparameters


class WithOptions(Lit):
    """Options among the hyperparameters, given by code."""

    def __init__(self, metric_logging: MetricLogging, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.metric_logging = metric_logging


LOGGERS = {
    "csv": lambda folder: CSVLogger(folder),
    "tensorboard": lambda folder: TensorBoardLogger(folder),
    "mlflow": lambda folder: MLFlowLogger(tracking_uri=f"sqlite:///{folder}/ml.db", artifact_location=f"{folder}/art"),
}


@pytest.mark.filterwarnings("ignore:Skipping 'metric_logging' parameter")  # Lightning's, of hparams.yaml
@pytest.mark.parametrize("make", LOGGERS.values(), ids=LOGGERS)
def test_options_among_the_hyperparameters(make, trainer, tmp_path):
    """Each logger takes them, also with omegaconf installed; the checkpoint loads with ``weights_only=True``."""
    options = MetricLogging(track_best={"val/acc": "max"}, class_names={"acc": LABELS}, metric_dtype="float64")
    run = trainer(logger=make(tmp_path), enable_checkpointing=True, max_epochs=1)
    run.fit(WithOptions(options), loader(), loader())
    path = run.checkpoint_callback.best_model_path
    assert torch.load(path, weights_only=True)["hyper_parameters"] == {"metric_logging": options, "lr": 0.1}
    loaded = load(WithOptions, path, weights_only=True)
    assert loaded.metric_logging == loaded.hparams.metric_logging == options


class WithMetrics(Lit):
    """Metrics among the hyperparameters as objects, as they should not be."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.declared = [metric]

    def configure_metrics(self):
        return {"acc": self.declared[0]}


def test_a_metric_object_among_the_hyperparameters_is_what_to_avoid(trainer):
    """What the how-to warns of: Lightning says so itself, and the checkpoint is refused with ``weights_only=True``."""
    with pytest.warns(UserWarning, match=r"'metric' is an instance of `nn\.Module`.*ignore=\['metric'\]"):
        module = WithMetrics(MulticlassAccuracy(3))
    run = trainer(enable_checkpointing=True, logger=False, max_epochs=1)
    run.fit(module, loader(), loader())
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(run.checkpoint_callback.best_model_path, weights_only=True)
    torch.load(run.checkpoint_callback.best_model_path, weights_only=False)


def test_a_factory_among_the_hyperparameters_is_no_plain_value_either(trainer):
    """A ``partial`` draws no warning, but its checkpoint is refused as well."""
    run = trainer(enable_checkpointing=True, logger=False, max_epochs=1)
    run.fit(Configured({"acc": functools.partial(MulticlassAccuracy, 3)}), loader(), loader())
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(run.checkpoint_callback.best_model_path, weights_only=True)


class Plain(Lit):
    """What to do instead: classes and arguments as plain values, made into metrics where they are declared."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_metrics(self):
        return {name: instantiate_class((), init) for name, init in self.hparams.metrics.items()}


def test_plain_values_among_the_hyperparameters(trainer):
    """They load with ``weights_only=True`` and make the same metrics again."""
    module = Plain({"acc": METRICS["acc"]})
    run = trainer(enable_checkpointing=True, logger=False, max_epochs=1)
    run.fit(module, loader(), loader())
    path = run.checkpoint_callback.best_model_path
    assert torch.load(path, weights_only=True)["hyper_parameters"] == {"metrics": {"acc": METRICS["acc"]}}
    (made,) = load(Plain, path, weights_only=True).configure_metrics().values()
    assert isinstance(made, MulticlassAccuracy)
    assert (made.num_classes, made.average) == (3, "micro")


# Hydra

TARGET = {"_target_": "metric_mixin.MetricLogging"}


@pytest.mark.parametrize("convert", ["none", "all"])
@pytest.mark.parametrize(("option", "value"), OPTIONS, ids=str)
def test_an_option_by_hydra_equals_the_one_in_code(option, value, convert):
    """OmegaConf's containers are taken as lists and mappings are, and nothing of them is kept."""
    made = instantiate(OmegaConf.create(TARGET | {option: value}), _convert_=convert)
    assert made == MetricLogging(**{option: value})
    kept = getattr(made, option)
    kept = [kept, *(kept.values() if isinstance(kept, dict) else ())]
    assert not [one for one in kept if type(one).__module__.startswith("omegaconf")]


def test_an_interpolation_is_resolved():
    """An option may refer to another place of the configuration."""
    cfg = OmegaConf.create({"labels": LABELS, "n": 4, "logging": TARGET | {"class_names": "${labels}"}})
    cfg.logging.figures_every_n_epochs = "${n}"
    assert instantiate(cfg.logging) == MetricLogging(class_names=LABELS, figures_every_n_epochs=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"figures": "acc"}, "figures='acc'"),
        ({"figures": [1]}, r"figures=\[1\].*got ListConfig"),
        ({"track_best": ["val/acc"]}, r"expected a mapping from key.*got ListConfig"),
        ({"class_names": {"acc": {"f1": ["a"]}}}, "got DictConfig"),
        ({"figures_every_n_epochs": 0}, "a whole number of at least 1"),
    ],
    ids=lambda one: str(one) if isinstance(one, dict) else "",
)
def test_a_wrong_option_by_hydra_is_our_error(options, said):
    """Hydra's exception has our message, and our error as its cause."""
    with pytest.raises(InstantiationException, match=said) as caught:
        instantiate(OmegaConf.create(TARGET | options))
    assert isinstance(caught.value.__cause__, OptionError)


def test_options_that_were_not_instantiated_are_an_error_that_says_so(trainer):
    """A part of the configuration in place of the object made from it is named as such."""
    module = Lit()
    module.metric_logging = OmegaConf.create(TARGET)
    with pytest.raises(OptionError, match=r"must be a MetricLogging, got DictConfig"):
        trainer().fit(module, loader(), loader())


class ByHydra(Lit):
    """A module as a user of Hydra writes it: parts of the configuration as plain values, instantiated in it."""

    def __init__(self, metrics: dict[str, Any], metric_logging: dict[str, Any], width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.metric_logging = instantiate(metric_logging)
        self.net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def configure_metrics(self):
        return instantiate(self.hparams.metrics, _convert_="all")


def test_hydra_fit_save_and_load(trainer):
    """Metrics and options of a configuration; the checkpoint has plain values and makes the same module again."""
    recall = {"_target_": "torchmetrics.classification.MulticlassRecall", "num_classes": 3, "average": None}
    cfg = OmegaConf.create(
        {
            "labels": LABELS,
            "model": {
                "_target_": f"{__name__}.ByHydra",
                "_recursive_": False,
                "_convert_": "all",
                "metric_logging": TARGET | {"track_best": {"val/acc": "max"}, "metric_dtype": "float64"},
                "metrics": {
                    "acc": {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 3},
                    "recall": {
                        "_target_": "torchmetrics.wrappers.ClasswiseWrapper",
                        "metric": recall,
                        "labels": "${labels}",
                    },
                },
            },
        }
    )
    run = trainer(enable_checkpointing=True, logger=False, max_epochs=1)
    module = instantiate(cfg.model)
    run.fit(module, loader(), loader())
    assert {"val/acc", "val/acc_best", *(f"val/recall/{label}" for label in LABELS)} <= run.callback_metrics.keys()
    path = run.checkpoint_callback.best_model_path
    saved = torch.load(path, weights_only=True)["hyper_parameters"]
    assert type(saved["metrics"]["recall"]["labels"]) is list
    loaded = load(ByHydra, path, weights_only=True)
    assert loaded.metric_logging == MetricLogging(track_best={"val/acc": "max"}, metric_dtype="float64")
    assert loaded.configure_metrics()["recall"].labels == LABELS
    assert isinstance(loaded.configure_metrics()["recall"].metric, MulticlassRecall)


@pytest.mark.parametrize("convert", ["none", "all"])
def test_metrics_that_hydra_made_are_declared_in_its_own_containers(convert):
    """A mapping of OmegaConf with metrics in it is a declaration as a dict is."""
    acc = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 3, "average": "micro"}
    module = Lit()
    module.configure_metrics = lambda: instantiate(OmegaConf.create({"a": acc, "b": {"c": acc}}), _convert_=convert)
    assert module.expected_metric_keys("val") == ["val/loss", "val/a", "val/b/c"]
    module.update_metrics(torch.eye(3), torch.tensor([0, 1, 1]), stage="val")
    assert module.val_metrics.compute() == {"a": torch.tensor(2 / 3), "b/c": torch.tensor(2 / 3)}
