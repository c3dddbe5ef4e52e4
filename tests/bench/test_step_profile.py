"""`bench profile` lists the operators of a real step, of two versions of the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deepavfusion
from deepavfusion.bench.config import ProfileBenchConfig
from deepavfusion.bench.step_profile import run


@pytest.mark.parametrize("twice", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_operators_and_waits_of_a_step(twice: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, tree = tmp_path / "profile.json", str(Path(deepavfusion.__file__).parents[1]) if twice else None
    found = run(ProfileBenchConfig("tiny", batch_size=2, top=5, against=tree, device="cpu", json=str(path)))
    times = [operator.self_ms for operator in found.operators]
    assert times == sorted(times, reverse=True)
    assert found.total_ms == pytest.approx(sum(times))
    calls = {operator.name: operator.calls for operator in found.operators}
    assert calls["aten::mm"] > 0
    assert calls["aten::_fused_adamw_"] == 2  # with weight decay and without
    # The counts of the two modalities, which lie on the host; nothing else looks at a number where a GPU would wait.
    looks = "aten::_local_scalar_dense"
    assert found.waits.pop(looks) == 2
    assert list(found.waits) == [f"{looks} in aten::_fused_adamw_"]
    assert "aten::gather" not in found.copies
    record = json.loads(path.read_text())
    assert record["now"]["waits"] == {looks: 2, **found.waits}
    assert not twice or record["now"]["waits"] == record["before"]["waits"]
    assert f"{looks} x 2" in capsys.readouterr().out
