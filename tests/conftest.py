"""Fixtures that more than one test module needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from salstream.runtime import SalstreamError


@pytest.fixture(scope="session")
def unisal_checkpoint() -> Path:
    """The published UNISAL checkpoint, from the user's cache or pulled into it."""
    pytest.importorskip("torch")
    from salstream.training.weights import pull

    try:
        return pull("unisal")
    except SalstreamError as error:
        pytest.skip(f"the published weights cannot be had: {error}")
