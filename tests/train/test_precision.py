"""The precision "auto": what it becomes, by times that are given here, and where it is refused."""

import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.train import precision  # noqa: E402
from deepsim.train.config import PRESETS  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.models import build_models  # noqa: E402

CPU, AUTO = torch.device("cpu"), PRESETS["tiny"].updated({"precision": "auto"})


@pytest.mark.parametrize(("share", "expected"), [(0.5, "bf16"), (0.79, "bf16"), (0.9, "fp32"), (3.0, "fp32")])
def test_bf16_is_taken_where_it_saves_a_fifth(share, expected, monkeypatch):
    monkeypatch.setattr(precision, "_seconds", {torch.bfloat16: share, torch.float32: 1.0}.get)
    assert precision.resolved(AUTO, CPU, World()).precision == expected


@pytest.mark.parametrize("given", ["fp32", "bf16", "fp16"])
def test_a_precision_that_is_named_stays(given, monkeypatch):
    monkeypatch.setattr(precision, "_seconds", None)  # nothing is timed
    assert precision.resolved(AUTO.updated({"precision": given}), CPU, World()).precision == given


def test_both_precisions_are_timed():
    assert all(0 < precision._seconds(dtype) < 60 for dtype in (torch.float32, torch.bfloat16))


def test_it_is_refused_where_repeats_are_to_be_equal():
    with pytest.raises(UsageError, match="auto goes by times"):
        AUTO.updated({"deterministic": True})


def test_networks_are_not_built_without_a_decision():
    with pytest.raises(UsageError, match="expected it resolved"):
        build_models(AUTO, CPU, World())
