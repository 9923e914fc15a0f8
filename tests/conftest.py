"""Fixtures that more than one test module needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from salstream.runtime import SalstreamError
from salstream.training.weights import pull


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """Sums are rounded as their order has it, and reference values want the same order."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def unisal_checkpoint() -> Path:
    """The published UNISAL checkpoint, from the user's cache or pulled into it."""
    try:
        return pull("unisal")
    except SalstreamError as error:
        pytest.skip(f"the published weights cannot be had: {error}")
