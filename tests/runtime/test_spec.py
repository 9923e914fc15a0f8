"""What a graph says about itself survives the way through its metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salstream.runtime import GraphSpec, SalstreamError
from salstream.runtime.spec import SCHEMA_VERSION

specs = st.builds(
    GraphSpec,
    model=st.text(min_size=1),
    domain=st.text(min_size=1),
    height=st.integers(1, 4096),
    width=st.integers(1, 4096),
    window=st.just(16),
    map_frame=st.integers(0, 15),
    phases=st.integers(1, 30),
    state_fps=st.none() | st.floats(0.1, 240),
    window_fps=st.none() | st.floats(0.1, 240),
    smoothing_sigma=st.none() | st.floats(0, 50),
    license=st.text(),
    verification=st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text()),
)


@given(specs)
def test_metadata_give_the_same_spec_back(spec: GraphSpec) -> None:
    metadata = spec.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert GraphSpec.from_metadata({**metadata, "producer": "somebody else"}) == spec


def test_metadata_of_others_are_refused() -> None:
    ours = GraphSpec(model="unisal", domain="dhf1k", height=224, width=384).to_metadata()
    for metadata, message in (
        ({}, "no salstream metadata"),
        ({**ours, "salstream.schema": "99"}, f"version 99, this salstream reads {SCHEMA_VERSION}"),
        ({**ours, "salstream.height": "tall"}, "salstream.height cannot be read: 'tall'"),
        ({**ours, "salstream.map_frame": "7"}, "map_frame must lie in the window"),
        ({**ours, "salstream.resize": "magic"}, "resize must be one of"),
        ({k: v for k, v in ours.items() if k != "salstream.width"}, "incomplete.*width"),
    ):
        with pytest.raises(SalstreamError, match=message):
            GraphSpec.from_metadata(metadata)
