"""The metrics against the MIT benchmark's code, pysaliency, and what must hold of any map."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from reference import reference
from salstream.runtime import UsageError
from salstream.training.metrics import auc_judd, cc, kld, nss, s_auc, sim

Case = dict[str, NDArray[Any]]
CASES = ("real_clip", "random", "centre_bias")


def case(name: str) -> Case:
    with np.load(reference("metrics_cases.npz")) as file:
        found = {key.split("/")[1]: file[key] for key in file if key.startswith(f"{name}/")}
    found["fixations"] = np.stack((found["fix_y"], found["fix_x"]), 1)
    found["others"] = np.stack((found["other_y"], found["other_x"]), 1)
    return found


def expected(code: str, name: str) -> dict[str, float]:
    values: dict[str, float] = json.loads(reference("metrics_expected.json").read_text())[code][
        name
    ]
    return values


@pytest.mark.parametrize("name", CASES)
def test_the_metrics_are_those_of_the_mit_code(name: str) -> None:
    given, values = case(name), expected("mit_benchmark_code", name)
    saliency, density, fixations = given["saliency"], given["density"], given["fixations"]
    assert nss(saliency, fixations) == pytest.approx(values["nss"], abs=1e-6)
    assert cc(saliency, density) == pytest.approx(values["cc"], abs=1e-6)
    assert sim(saliency, density) == pytest.approx(values["sim"], abs=1e-6)
    assert kld(saliency, density) == pytest.approx(values["kld"], abs=1e-6)
    assert auc_judd(saliency, fixations) == pytest.approx(values["auc_judd"], abs=1e-6)
    s_auc_here = s_auc(saliency, fixations, given["others"])
    assert s_auc_here == pytest.approx(values["sauc_mean_of_5_runs"], abs=0.01)


@pytest.mark.parametrize("name", CASES)
def test_where_the_definitions_agree_so_does_pysaliency(name: str) -> None:
    given, values = case(name), expected("pysaliency_0.2.22", name)
    saliency, density, fixations = given["saliency"], given["density"], given["fixations"]
    population = np.sqrt(saliency.size / (saliency.size - 1))
    assert nss(saliency, fixations) * population == pytest.approx(
        values["nss_population_std"], abs=1e-6
    )
    assert cc(saliency, density) == pytest.approx(values["cc"], abs=1e-9)
    assert kld(saliency, density) == pytest.approx(values["kld"], abs=1e-9)
    # fixations of equal value are counted differently; only the last case has such
    tied = name == "centre_bias"
    assert auc_judd(saliency, fixations) == pytest.approx(
        values["auc_judd_no_jitter"], abs=3e-4 if tied else 1e-9
    )
    assert len(np.unique(fixations, axis=0)) == values["fixations"]


def test_s_auc_is_the_mean_over_random_subsets() -> None:
    """The MIT code draws as many other fixations as there are fixations, again and again."""
    rng = np.random.default_rng(0)
    saliency = rng.random((30, 40))
    fixations = rng.integers(0, (30, 40), (9, 2))
    others = np.unique(rng.integers(0, (30, 40), (80, 2)), axis=0)
    drawn = [
        s_auc(saliency, fixations, rng.permutation(others)[: len(fixations)]) for _ in range(4000)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - s_auc(saliency, fixations, others)) < 4 * error


maps = arrays(np.float32, (7, 9), elements=st.floats(0, 1, width=32))
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), min_size=1, max_size=20).map(
    np.array
)


@given(maps, points)
def test_auc_judd_counts_as_the_loop_over_thresholds_does(
    saliency: NDArray[np.float32], fixations: NDArray[np.int64]
) -> None:
    """The definition, threshold by threshold."""
    if saliency.min() == saliency.max():
        assert auc_judd(saliency, fixations) == 0.5
        return
    at = np.unique(fixations, axis=0)
    thresholds = sorted((saliency[y, x] for y, x in at), reverse=True)
    hits, false_alarms = [0.0], [0.0]
    for i, threshold in enumerate(thresholds, 1):
        hits.append(i / len(at))
        above = np.count_nonzero(saliency >= threshold)
        false_alarms.append((above - i) / (saliency.size - len(at)))
    area = np.trapezoid([*hits, 1.0], [*false_alarms, 1.0])
    assert auc_judd(saliency, fixations) == pytest.approx(area, abs=1e-12)


@given(maps, points, st.floats(0.5, 100), st.floats(0, 10))
def test_scale_and_offset_change_nothing(
    saliency: NDArray[np.float32], fixations: NDArray[np.int64], scale: float, offset: float
) -> None:
    quantized = np.round(saliency.astype(np.float64) * 64)  # so that ties stay ties
    other = quantized * scale + offset
    assert nss(other, fixations) == pytest.approx(nss(quantized, fixations), abs=1e-6)
    assert auc_judd(other, fixations) == pytest.approx(auc_judd(quantized, fixations))
    density = np.zeros((7, 9))
    density[fixations[:, 0], fixations[:, 1]] = 1
    assert cc(other, density) == pytest.approx(cc(quantized, density), abs=1e-6)
    assert sim(other, density) == pytest.approx(sim(quantized, density), abs=1e-6)


@given(maps.filter(lambda m: m.max() - m.min() > 0.01))
def test_a_map_is_most_like_itself(density: NDArray[np.float32]) -> None:
    assert cc(density, density) == pytest.approx(1)
    assert sim(density, density) == pytest.approx(1)
    assert kld(density, density) == pytest.approx(0, abs=1e-9)


def test_fixations_may_be_a_map_and_count_once() -> None:
    rng = np.random.default_rng(1)
    saliency = rng.random((12, 16))
    fixations = np.array([[1, 2], [5, 6], [1, 2]], np.int32)
    fixated = np.zeros((12, 16), bool)
    fixated[[1, 5], [2, 6]] = True
    assert nss(saliency, fixations) == nss(saliency, fixated)
    assert auc_judd(saliency, fixations) == auc_judd(saliency, fixated)
    assert s_auc(saliency, fixations, fixated) == 0.5


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_a_constant_map_scores_as_chance(value: float) -> None:
    saliency = np.full((6, 8), value, np.float32)
    density = np.eye(6, 8)
    fixations = np.array([[0, 0], [3, 3]])
    assert nss(saliency, fixations) == 0
    assert cc(saliency, density) == 0
    assert auc_judd(saliency, fixations) == 0.5
    assert s_auc(saliency, fixations, np.array([[5, 5]])) == 0.5
    assert sim(saliency, density) == pytest.approx(6 / 48)
    assert kld(saliency, density) == pytest.approx(np.log(48 / 6))


def test_without_fixations_there_is_no_answer() -> None:
    saliency, nothing = np.eye(6, 8), np.zeros((0, 2), np.int32)
    empty = np.zeros((6, 8))
    assert np.isnan([nss(saliency, nothing), auc_judd(saliency, nothing)]).all()
    assert np.isnan(s_auc(saliency, np.array([[1, 1]]), nothing))
    assert np.isnan([metric(saliency, empty) for metric in (cc, sim, kld)]).all()


@pytest.mark.parametrize(
    ("fixations", "said"),
    [
        (np.array([[6, 0]]), "outside"),
        (np.array([[0, -1]]), "outside"),
        (np.array([[0.5, 1.0]]), "integers"),
        (np.array([1, 2]), "integers"),
        (np.zeros((8, 6), bool), "does not fit"),
    ],
)
def test_wrong_fixations_are_refused(fixations: NDArray[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        nss(np.eye(6, 8), fixations)


def test_wrong_maps_are_refused() -> None:
    good = np.eye(6, 8)
    with pytest.raises(UsageError, match="same size"):
        cc(good, good.T)
    with pytest.raises(UsageError, match="not finite"):
        sim(np.full((6, 8), np.nan), good)
    with pytest.raises(UsageError, match="negative"):
        kld(good - 1, good)
    with pytest.raises(UsageError, match=r"\(height, width\)"):
        nss(np.zeros((2, 3, 4)), np.array([[0, 0]]))


def test_no_torch_is_imported() -> None:
    program = "import sys, salstream.training.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
