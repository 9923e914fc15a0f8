"""Fixtures that more than one test module needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from salstream.runtime import SalstreamError
from salstream.training.esan import Esan
from salstream.training.weights import pull


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """Sums are rounded as their order has it, and float32's golden losses want the same order."""
    torch.set_num_threads(2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For float64, whose depthwise convolutions are many small steps.

    Where the processor has other work too, threads spend most of the time waiting for each
    other after each of them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def unisal_checkpoint() -> Path:
    """The published UNISAL checkpoint, from the user's cache or pulled into it."""
    try:
        return pull("unisal")
    except SalstreamError as error:
        pytest.skip(f"the published weights cannot be had: {error}")


@pytest.fixture(scope="session")
def random_esan() -> Esan:
    """A network whose random layers keep the size of their input, so that nothing dies out."""
    torch.manual_seed(0)
    model = Esan().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    return model
