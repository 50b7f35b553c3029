"""Every test starts from the same random numbers, and has one thread, since small tensors gain nothing from more."""

import importlib.metadata
import os

import pytest
import torch

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what LightningCLI calls
torch.set_num_threads(1)


def pytest_report_header() -> str:
    """Say which versions are tried."""
    names = ("torch", "torchmetrics", "lightning", "pytorch-lightning", "numpy", "matplotlib")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def trainer(tmp_path):
    """Make quiet Trainers that write below the test's own folder."""
    from tests.support import make_trainer

    return lambda **options: make_trainer(tmp_path, **options)
