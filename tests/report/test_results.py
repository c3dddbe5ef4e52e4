"""The result and timing files are read as they stand, or refused by name."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from deepavfusion.report.results import read_evaluation, read_timings
from tests.report.conftest import HOSTILE, RESULTS, TIMINGS


def write(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_an_evaluation_is_read_whole(tmp_path: Path) -> None:
    found = read_evaluation(write(tmp_path / "results.json", RESULTS))
    assert (found.protocol, found.num_scored, found.confidence) == ("single label, centre window", 238, 0.95)
    assert list(found.scores) == ["top-1, fusion", "top-1, image"]
    assert found.scores["top-1, image"].low == 0.17133
    difference = found.baselines["untrained"]["top-1, fusion"].difference
    assert difference is not None
    assert difference.excludes_zero
    other = found.baselines["untrained"]["top-1, image"].difference
    assert other is not None
    assert not other.excludes_zero
    assert found.baselines[HOSTILE]["top-1, fusion"].score.low is None
    assert (found.left_out, found.counted_as_wrong) == ({"missing": 2}, {"prediction not finite": 3})


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("num_scored",), -1, "num_scored is not a count: -1"),
        (("protocol",), "", "protocol is not a text"),
        (("scores",), {}, "scores is empty"),
        (("scores", "top-1, image", "value"), float("nan"), "scores.top-1, image.value is not a finite number: nan"),
        (("scores", "top-1, image", "value"), True, "not a finite number: True"),
        (("scores", "top-1, image", "low"), None, "both ends"),
        (("scores", "top-1, image", "low"), 0.9, "low 0.9 is above high"),
        (("baselines", "untrained", "top-5"), {"value": 0.1}, "top-5"),
        (("confidence",), 95, "confidence 95"),
        (("left_out",), {"missing": "two"}, "left_out.missing is not a count"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    tmp_path: Path, place: tuple[str, ...], value: Any, message: str
) -> None:
    results: dict[str, Any] = copy.deepcopy(RESULTS)
    holder = results
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path = write(tmp_path / "results.json", results)
    with pytest.raises(ValueError, match=message) as refusal:
        read_evaluation(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("key", ["protocol", "num_scored", "scores"])
def test_required_keys(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "results.json", {k: v for k, v in RESULTS.items() if k != key})
    with pytest.raises(ValueError, match=f"{key} is missing"):
        read_evaluation(path)


def test_timings(tmp_path: Path) -> None:
    stages = read_timings(write(tmp_path / "timings.json", TIMINGS))
    assert [(s.name, s.seconds, s.command) for s in stages] == [tuple(t.values()) for t in TIMINGS]
    for wrong, message in (
        (TIMINGS[0], "not a list"),
        ([{"stage": "a", "seconds": -1}], "seconds is -1"),
        ("x", "list"),
    ):
        with pytest.raises(ValueError, match=message):
            read_timings(write(tmp_path / "timings.json", wrong))
    (tmp_path / "timings.json").write_text("[")
    with pytest.raises(ValueError, match="not JSON"):
        read_timings(tmp_path / "timings.json")
