"""Shared updates: whatever is done to a stage or to its members, each metric has exactly the rows it was fed."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryF1Score,
    BinaryRecall,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassPrecisionRecallCurve,
    MulticlassRecall,
    MulticlassROC,
    MulticlassSpecificity,
)
from torchmetrics.regression import ConcordanceCorrCoef, PearsonCorrCoef
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import StageMetrics, UpdateError
from metric_mixin._groups import keeper

CLASSES = 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:No (positive|negative) samples"),
    pytest.mark.filterwarnings("ignore:.*NaN values found in confusion matrix"),
]

# Three groups of metrics that may share a state, and one that stands alone
FACTORIES = {
    "acc": lambda: MulticlassAccuracy(CLASSES),
    "f1": lambda: MulticlassF1Score(CLASSES),
    "each": lambda: ClasswiseWrapper(MulticlassRecall(CLASSES, average=None)),
    "precision": lambda: MulticlassPrecision(CLASSES, average="weighted"),
    "confusion": lambda: MulticlassConfusionMatrix(CLASSES),
    "jaccard": lambda: MulticlassJaccardIndex(CLASSES),
    "curve": lambda: MulticlassPrecisionRecallCurve(CLASSES),
    "roc": lambda: MulticlassROC(CLASSES),
    "micro": lambda: MulticlassAccuracy(CLASSES, average="micro"),
}
# What may take a metric's place: of the same group, of another one, or of none
OTHERS = {
    "specificity": lambda: MulticlassSpecificity(CLASSES),
    "normalized": lambda: MulticlassConfusionMatrix(CLASSES, normalize="true"),
    "micro": FACTORIES["micro"],
}
NAMES = list(FACTORIES)


def scores(preds, seed):
    """Probabilities of shape ``(N, CLASSES)`` of which the given classes are the highest."""
    noise = torch.rand(len(preds), CLASSES, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.one_hot(tensor(preds), CLASSES) + 0.9 * noise).softmax(-1)


# Target and predicted classes; no two batches have the same recall of any class
BATCHES = [
    (scores(preds, seed), tensor(target))
    for seed, (preds, target) in enumerate(
        [
            ([0, 1, 2, 1, 0], [0, 1, 2, 2, 1]),
            ([2], [1]),
            ([2, 1, 0, 1, 1, 0], [2, 2, 0, 1, 0, 0]),
            ([0, 0, 1], [0, 0, 0]),
        ]
    )
]


class Pair:
    """A stage and, for each of its metrics, a plain one of torchmetrics that is fed by hand."""

    def __init__(self, names=NAMES):
        self.plain = {name: keeper(FACTORIES[name]()) for name in names}
        self.stage = StageMetrics({name: FACTORIES[name]() for name in names})
        self.has_rows = dict.fromkeys(names, False)
        self.held = {}

    # What a user does

    def update(self, names, batch):
        if names is None:
            self.stage.update(*BATCHES[batch])
        else:
            self.stage.update_only(names, *BATCHES[batch])
        self._feed(self.plain if names is None else names, batch)

    def forward(self, batch):
        self.stage(*BATCHES[batch])
        self._feed(self.plain, batch)

    def update_member(self, name, batch):
        self._update(self.stage[name], name, batch)

    def reset_member(self, name):
        self._reset(self.stage[name], name)

    def restart_member(self, name, batch):
        """Reset and update a handed out metric as often as the stage did: its number of updates stays the same."""
        metric = self.stage[name]
        times = max(1, keeper(metric).update_count)
        self._reset(metric, name)
        for _ in range(times):
            self._update(metric, name, batch)

    def hold(self, name):
        self.held[name] = self.stage[name]

    def update_held(self, name, batch):
        if name in self.held:
            self._update(self.held[name], name, batch)

    def reset_held(self, name):
        if name in self.held:
            self._reset(self.held[name], name)

    def look_at_held(self, name):
        if name in self.held and self.has_rows[name]:
            _assert_same(keeper(self.held[name]).compute(), self.plain[name].compute(), name)

    def every_member(self, batch):
        for name, metric in self.stage.items():
            self._update(metric, name, batch)

    def look(self, copy_state):
        for metric, name in zip(self.stage.values(copy_state), self.stage.names(), strict=True):
            if self.has_rows[name]:
                _assert_same(keeper(metric).compute(), self.plain[name].compute(), name)

    def compute(self):
        self._check(self.stage)

    def reset(self):
        self.stage.reset()
        for name, metric in self.plain.items():
            metric.reset()
            self.has_rows[name] = False

    def deepcopy(self):
        self.stage = copy.deepcopy(self.stage)
        self.held = {}

    def pickle(self):
        self.stage = pickle.loads(pickle.dumps(self.stage))
        self.held = {}

    def delete(self, name):
        if name in self.plain and len(self.plain) > 1:
            del self.stage[name]
            self.held.pop(name, None)
            del self.plain[name], self.has_rows[name]

    def put(self, name, kind):
        """Add a metric, or set another in the place of one."""
        make = OTHERS.get(kind, FACTORIES[name])
        self.stage[name] = make()
        self.held.pop(name, None)
        self.plain.pop(name, None)
        self.has_rows.pop(name, None)
        order = self.stage.names()
        self.plain = {key: self.plain.get(key, None) or keeper(make()) for key in order}
        self.has_rows = {key: self.has_rows.get(key, False) for key in order}

    def move(self):
        self.stage.to("cpu")

    def keep_dtype(self):
        self.stage.keep_dtype(torch.float32)

    def state_dict(self):
        """States that are kept persistently are those of each metric: a plain collection that loads them agrees."""
        self.stage.persistent(True)
        plain = MetricCollection(
            {name: copy.deepcopy(metric) for name, metric in self.plain.items()}, compute_groups=False
        )
        plain.reset()
        saved = self.stage.state_dict()
        plain.load_state_dict({key.replace(".metric.", "."): value for key, value in saved.items()})
        for name, metric in plain.items():
            metric._update_count = int(self.has_rows[name])
            if self.has_rows[name]:
                _assert_same(metric.compute(), self.plain[name].compute(), name)

    # What must hold after each of it

    def check(self):
        """Compare without touching the stage: a later operation must not profit from a look at it."""
        self._check(copy.deepcopy(self.stage))

    def _check(self, stage):
        fed = [name for name, has_rows in self.has_rows.items() if has_rows]
        values = dict(stage.compute_values(fed))
        assert stage.names() == list(self.plain)
        for name in fed:
            _assert_same(values[name], self.plain[name].compute(), name)

    def _feed(self, names, batch):
        for name in set(names):
            self._plain_update(name, batch)

    def _update(self, metric, name, batch):
        metric.update(*BATCHES[batch])
        self._plain_update(name, batch)

    def _plain_update(self, name, batch):
        self.plain[name].update(*BATCHES[batch])
        self.has_rows[name] = True

    def _reset(self, metric, name):
        metric.reset()
        self.plain[name].reset()
        self.has_rows[name] = False


def _assert_same(value, wanted, name):
    torch.testing.assert_close(value, wanted, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")


def run(operations, names=NAMES):
    pair = Pair(names)
    for kind, *args in operations:
        if kind == "update":
            args[0] = args[0] and [name for name in args[0] if name in pair.plain]
        elif kind != "put" and args and args[0] in NAMES and args[0] not in pair.plain:
            continue  # it was deleted
        getattr(pair, kind)(*args)
        pair.check()
    return pair


name = st.sampled_from(["acc", "f1", "each", "confusion", "jaccard"])
batch = st.integers(0, len(BATCHES) - 1)
some = st.none() | st.lists(name, max_size=4)
ON_THE_STAGE = [
    st.tuples(st.just("update"), some, batch),
    st.tuples(st.just("update"), st.none(), batch),
    st.tuples(st.just("forward"), batch),
    st.tuples(st.just("look"), st.booleans()),
    *(st.just((kind,)) for kind in ("compute", "reset", "deepcopy", "pickle", "move", "keep_dtype", "state_dict")),
]
ON_MEMBERS = [
    st.tuples(st.just("update_member"), name, batch),
    st.tuples(st.just("reset_member"), name),
    st.tuples(st.just("restart_member"), name, batch),
    st.tuples(st.just("every_member"), batch),
]
ON_THE_DECLARATION = [
    st.tuples(st.just("delete"), name),
    st.tuples(st.just("put"), name, st.sampled_from([None, *OTHERS])),
]
ON_HELD = [
    st.tuples(st.just("hold"), name),
    st.tuples(st.just("update_held"), name, batch),
    st.tuples(st.just("reset_held"), name),
    st.tuples(st.just("look_at_held"), name),
]
FEW = ["acc", "f1", "each"]  # one group
HALF = [*FEW, "confusion", "jaccard"]  # fewer names meet more often in one sequence


def sequences(*kinds, size=10):
    return st.lists(st.one_of(*(kind for group in kinds for kind in group)), min_size=1, max_size=size)


@given(sequences(ON_THE_STAGE))
@settings(deadline=None, max_examples=40)
def test_whatever_is_done_to_a_stage_each_metric_has_its_rows(operations):
    """Updates of all and of some, batches' values, looks, copies and resets in any order lose and add no row."""
    run(operations)


@given(sequences(ON_THE_STAGE, ON_MEMBERS))
@settings(deadline=None, max_examples=40)
def test_whatever_is_done_to_members_too_each_metric_has_its_rows(operations):
    """A member may be updated and reset by itself between whatever is done to the stage, and no other one changes."""
    run(operations, HALF)


@given(sequences(ON_THE_STAGE, ON_MEMBERS, ON_THE_DECLARATION))
@settings(deadline=None, max_examples=40)
def test_whatever_is_declared_meanwhile_each_metric_has_its_rows(operations):
    """Metrics that are added, deleted and replaced in the middle of an epoch leave the rows of the others alone."""
    run(operations, HALF)


@given(sequences([st.tuples(st.just("update"), st.none(), batch), st.just(("reset",)), st.just(("compute",))], ON_HELD))
@settings(deadline=None, max_examples=40)
def test_a_member_that_somebody_kept_has_its_rows(operations):
    """A member may be kept over updates and resets, looked at, updated and reset at any time later."""
    run(operations, HALF)


# The sequences that torchmetrics users write, each by itself

CASES = {
    "reset-and-updated-as-often": [("update", None, 0), ("restart_member", "acc", 2), ("update", None, 0)],
    "follower-reset-and-updated-as-often": [("update", None, 0), ("restart_member", "f1", 2), ("update", None, 0)],
    "reset-alone": [("update", None, 0), ("reset_member", "acc"), ("update", None, 2)],
    "updated-alone": [("update", None, 0), ("update_member", "f1", 2), ("update", None, 0)],
    "updated-alone-before-all": [("update_member", "f1", 2), ("update", None, 0)],
    "added-after-one-was-updated-alone": [("update", None, 0), ("update_member", "f1", 2), ("put", "micro", None)],
    "deleted-after-one-was-updated-alone": [("update", None, 0), ("update_member", "f1", 2), ("delete", "each")],
    "replaced-after-one-was-updated-alone": [("update", None, 0), ("update_member", "f1", 2), ("put", "acc", None)],
    "one-named-twice": [("update", ["acc", "acc"], 0), ("update_member", "acc", 2)],
    "some-of-a-group": [("update", ["f1", "each"], 0), ("compute",), ("update", None, 2)],
    "all-of-a-group": [("update", ["each", "f1", "acc"], 0), ("update", None, 2)],
    "none": [("update", [], 0), ("update", None, 2)],
    "forward-in-the-middle": [("update", None, 0), ("forward", 1), ("update", None, 2)],
    "copied-before-a-look": [("update", None, 0), ("deepcopy",), ("update", None, 2)],
    "saved-before-a-look": [("update", None, 0), ("state_dict",), ("update", ["f1"], 2), ("state_dict",)],
    "reset-between": [("update", ["f1"], 0), ("reset",), ("update", None, 2)],
    "held-and-looked-at": [("hold", "f1"), ("update", None, 0), ("look_at_held", "f1")],
    "held-leader-updated": [("hold", "acc"), ("update", None, 0), ("update_held", "acc", 2)],
    "held-follower-updated": [("hold", "f1"), ("update", None, 0), ("update_held", "f1", 2)],
    "held-over-a-reset": [("hold", "f1"), ("update", None, 0), ("reset",), ("update_held", "f1", 2)],
    "held-leader-over-a-reset": [("hold", "acc"), ("reset",), ("update_held", "acc", 2), ("update", None, 0)],
    "held-while-another-is-fed": [("hold", "f1"), ("update", ["each"], 0), ("update_held", "f1", 2), ("compute",)],
    "held-and-reset": [("update", None, 0), ("hold", "acc"), ("update", None, 1), ("reset_held", "acc")],
}


@pytest.mark.parametrize("case", CASES)
def test_no_metric_has_rows_of_another(case):
    """Each of these sequences leaves every metric with the rows that it was fed, and nothing else."""
    pair = run([list(operation) for operation in CASES[case]], FEW)
    pair.compute()


def test_what_the_sequences_compare_with_can_tell():
    """Control: torchmetrics' own collection loses a member's update in one of the sequences above."""
    stage = MetricCollection({"acc": MulticlassAccuracy(CLASSES), "f1": MulticlassF1Score(CLASSES)})
    f1 = MulticlassF1Score(CLASSES)
    stage.update(*BATCHES[0])
    f1.update(*BATCHES[0])
    for metric in (stage["f1"], f1):
        metric.update(*BATCHES[2])
    stage.update(*BATCHES[0])
    f1.update(*BATCHES[0])
    assert stage.compute()["f1"].item() != f1.compute().item()


WAYS = {
    "attribute": lambda stage: [stage.acc, stage.f1],
    "children": lambda stage: list(stage.children()),
    "named-children": lambda stage: [metric for _, metric in stage.named_children()],
    "values": lambda stage: list(stage.values()),
    "items": lambda stage: [metric for _, metric in stage.items()],
    "items-by-reference": lambda stage: [metric for _, metric in stage.items(keep_base=True, copy_state=False)],
    "getitem": lambda stage: [stage["acc"], stage["f1"]],
    "iteration": lambda stage: [stage[name] for name in stage],
    "metric-state": lambda stage: [_with_state(name, state) for name, state in stage.metric_state.items()],
    "pop": lambda stage: [stage.pop("acc"), stage.pop("f1")],
}


def _with_state(name, state):
    metric = FACTORIES[name]()
    for key, value in state.items():
        setattr(metric, key, value)
    metric._update_count = 1
    return metric


@pytest.mark.parametrize("way", WAYS)
def test_a_member_has_its_state_by_whatever_way_it_is_reached(way):
    """Directly after a shared update a member has the value of a plain metric, however one gets hold of it."""
    stage = StageMetrics({"acc": MulticlassAccuracy(CLASSES), "f1": MulticlassF1Score(CLASSES)})
    stage.update(*BATCHES[0])
    wanted = []
    for name in ("acc", "f1"):
        plain = FACTORIES[name]()
        plain.update(*BATCHES[0])
        wanted.append(plain.compute().item())
    assert [metric.compute().item() for metric in WAYS[way](stage)] == wanted


@pytest.mark.parametrize("name", FEW)
def test_updated_forgets_a_member_that_was_reset_by_itself(name):
    """A member that was reset by its own ``reset`` has no rows, and the stage says so."""
    stage = StageMetrics({name: FACTORIES[name]() for name in FEW})
    stage.update(*BATCHES[0])
    stage[name].reset()
    assert [other for other in FEW if not stage.updated(other)] == [name]


def test_a_cleared_stage_takes_new_metrics():
    """After ``clear`` nothing of the metrics before is left, and others can be added, fed and computed."""
    stage = StageMetrics({name: FACTORIES[name]() for name in FEW})
    stage.update(*BATCHES[0])
    stage.clear()
    assert stage.compute() == {}
    stage.add_metrics({"acc": FACTORIES["acc"](), "f1": FACTORIES["f1"]()})
    stage.update(*BATCHES[2])
    for name in ("acc", "f1"):
        plain = FACTORIES[name]()
        plain.update(*BATCHES[2])
        assert stage[name].compute().item() == plain.compute().item()


@pytest.mark.parametrize("inside", [False, True], ids=["itself", "in-a-module"])
def test_states_that_were_loaded_go_on_by_themselves(inside):
    """States of metrics that were fed apart, loaded into a new stage, are not taken for each other's afterwards."""

    def made():
        stage = StageMetrics({name: FACTORIES[name]() for name in FEW})
        stage.persistent(True)
        if not inside:
            return stage, stage
        module = torch.nn.Module()
        module.stage = stage
        return stage, module

    first, saved = made()
    first.update_only(["acc"], *BATCHES[0])
    first.update(*BATCHES[1])
    second, loaded = made()
    loaded.load_state_dict(saved.state_dict())
    second.update(*BATCHES[2])
    values = dict(second.compute_values())
    for name in FEW:
        plain = keeper(FACTORIES[name]())
        for batch_of in ([0] if name == "acc" else []) + [1, 2]:
            plain.update(*BATCHES[batch_of])
        _assert_same(values[name], plain.compute(), name)


def test_a_member_that_loaded_a_state_keeps_it():
    """A state that one member loads is its own: the others keep theirs, and none is overwritten by a next update."""
    stage = StageMetrics({name: FACTORIES[name]() for name in FEW})
    stage.update(*BATCHES[0])
    plain = MulticlassF1Score(CLASSES)
    plain.persistent(True)
    plain.update(*BATCHES[2])
    stage["f1"].load_state_dict(plain.state_dict())
    stage.update(*BATCHES[1])
    plain.update(*BATCHES[1])
    assert dict(stage.compute_values(["f1"]))["f1"].item() == plain.compute().item()
    acc = FACTORIES["acc"]()
    acc.update(*BATCHES[0])
    acc.update(*BATCHES[1])
    assert dict(stage.compute_values(["acc"]))["acc"].item() == acc.compute().item()


SERIES = [(torch.rand(n), torch.rand(n)) for n in (5, 3, 8)]


@pytest.mark.parametrize("looks", [False, True], ids=["at-the-end", "after-each-batch"])
def test_states_of_other_forms_are_shared_alike(looks):
    """Running means and covariances, which an update replaces and does not change, move along in every metric."""
    stage = StageMetrics({"pearson": PearsonCorrCoef(), "concordance": ConcordanceCorrCoef()})
    plain = {"pearson": PearsonCorrCoef(), "concordance": ConcordanceCorrCoef()}
    for series in SERIES:
        stage.update(*series)
        for metric in plain.values():
            metric.update(*series)
        if looks:
            assert stage["concordance"].compute().item() == plain["concordance"].compute().item()
    assert {key: value.item() for key, value in stage.compute().items()} == {
        name: metric.compute().item() for name, metric in plain.items()
    }


class Calls(Metric):
    """Refuses every second batch after it was changed."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds, target):
        self.rows = self.rows + len(preds)
        if len(preds) == 1:
            raise ValueError("one row")

    def compute(self):
        return self.rows


def test_a_reset_after_a_refused_batch_leaves_nothing_of_it():
    """What a metric that refused a batch left in a half shared state is gone with the next reset."""
    stage = StageMetrics({"acc": FACTORIES["acc"](), "calls": Calls(), "f1": FACTORIES["f1"]()})
    stage.update(*BATCHES[0])
    with pytest.raises(RuntimeError, match="'calls'"):
        stage.update(*BATCHES[1])
    stage.reset()
    stage.update(*BATCHES[2])
    acc, f1 = FACTORIES["acc"](), FACTORIES["f1"]()
    acc.update(*BATCHES[2])
    f1.update(*BATCHES[2])
    assert {key: value.item() for key, value in stage.compute().items()} == {
        "acc": acc.compute().item(),
        "calls": 6.0,
        "f1": f1.compute().item(),
    }


def test_another_dtype_in_the_middle_of_an_epoch_loses_no_rows():
    """``keep_dtype`` between an update and a look leaves every metric with all rows."""
    pair = run([("update", None, 0), ("compute",), ("update", None, 1)], FEW)
    pair.stage.keep_dtype(torch.float32)
    pair.compute()


@pytest.mark.parametrize(
    "look", [lambda stage: stage.compute(), lambda stage: stage.update(*BATCHES[0])], ids=["compute", "update"]
)
@pytest.mark.parametrize("position", range(3), ids=["first", "second", "third"])
def test_an_object_that_was_given_and_is_updated_by_its_owner_is_an_error(look, position):
    """It shares its very state with others, whose rows can no longer be told apart; a reset begins anew."""
    declared = {name: FACTORIES[name]() for name in FEW}
    stage = StageMetrics(declared)
    stage.update(*BATCHES[0])
    keeper(declared[FEW[position]]).update(*BATCHES[2])
    with pytest.raises(UpdateError, match=rf"'{FEW[position]}' .*was updated or reset by itself, though it shares"):
        look(stage)
    stage.reset()
    stage.update(*BATCHES[1])
    for name in FEW:
        plain = keeper(FACTORIES[name]())
        plain.update(*BATCHES[1])
        _assert_same(dict(stage.compute_values())[name], plain.compute(), name)


class Refuses(MeanMetric):
    """Takes nothing."""

    def update(self, preds, target):
        raise ValueError("bad shapes")


@pytest.mark.parametrize("handed_out", [False, True], ids=["kept", "handed-out"])
def test_a_metric_that_refuses_is_the_one_that_is_blamed(handed_out):
    """Metrics of a group that took the batch before it are in order: they can be moved, computed and updated."""
    stage = StageMetrics({"acc": MulticlassAccuracy(3), "rec": MulticlassRecall(3), "bad": Refuses()})
    if handed_out:
        list(stage.items())
    labels = tensor([0, 1, 2])
    for _ in range(2):
        with pytest.raises(UpdateError, match=r"Metric 'bad' .* refused its inputs: bad shapes"):
            stage.update(labels, labels)
    stage.to("cpu")
    assert stage["acc"].update_count == stage["rec"].update_count == 2
    stage.update_only(["acc", "rec"], labels, labels)
    assert stage["rec"].compute() == 1


@pytest.mark.parametrize("handed_out", [False, True], ids=["given", "handed-out"])
@pytest.mark.parametrize("name", ["acc", "f1"])
def test_a_setting_that_changes_between_epochs_is_that_of_one_metric(name, handed_out):
    """Metrics that shared a state do so no longer, and again once the setting is back."""
    given = {"acc": BinaryAccuracy(), "f1": BinaryF1Score(), "rec": BinaryRecall()}
    stage = StageMetrics(given)
    preds, target = tensor([0.3, 0.6, 0.4]), tensor([0, 1, 1])
    for threshold, groups in ((0.5, 1), (0.2, 2), (0.5, 1)):
        (stage[name] if handed_out else given[name]).threshold = threshold
        stage.reset()
        stage.update(preds, target)
        assert len(stage._sharing.groups) == len(stage.compute_groups) == groups
        for key, metric in given.items():
            plain = type(metric)(threshold if key == name else 0.5)
            plain.update(preds, target)
            assert stage.compute()[key] == plain.compute(), key
