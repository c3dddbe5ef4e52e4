"""The average of the weights: its values by hand, across a stop, between processes, and where it shows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor, nn

from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE
from deepavfusion.training.weight_average import decay_at, first_average, update_average
from tests.forks import ended_together
from tests.training import sharded_toy, toy_task
from tests.training.sharded_toy import BlockTask, block_config
from tests.training.test_loop import assert_same, final_state, make, quiet, rows, run, stop_at
from tests.training.test_sharding import assert_close
from tests.training.toy_task import ToyModel, ToyTask, program_config


def test_three_steps_by_hand() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1.0)
    model.bias.requires_grad_(False)
    average = first_average(model)
    assert list(average) == ["weight"]
    values = []
    for step, weight in enumerate([2.0, 4.0, 8.0], start=1):
        nn.init.constant_(model.weight, weight)
        update_average(average, model, step, decay=0.24)
        values.append(average["weight"].item())
    # The decays are 2/11, then 0.24, which is less than 3/12 and 4/13.
    assert values == pytest.approx([20 / 11, 0.24 * 20 / 11 + 0.76 * 4, 0.24**2 * 20 / 11 + 0.24 * 0.76 * 4 + 6.08])
    assert average["weight"].dtype == torch.float32
    assert not average["weight"].requires_grad
    assert decay_at(100_000, 0.999) == 0.999


class Frozen(ToyTask):
    """With half of the model fixed, and a buffer that every pass counts up."""

    def build_model(self) -> ToyModel:
        model = super().build_model()
        model.encode.requires_grad_(False)
        model.register_buffer("passes", torch.zeros(()))
        return model

    def loss_terms(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
        model.passes.add_(1)
        return super().loss_terms(model, inputs)


def test_a_run_keeps_both_and_saves_the_average(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=1, checkpoint_every=1, keep_checkpoints=3, ema=0.999)
    torch.manual_seed(config.training.seed)
    first = Frozen(config).build_model().state_dict()
    fit(Frozen(config), config, quiet())
    states = [checkpoints.load(path) for path in checkpoints.list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert [set(state["average"]) for state in states] == [{"decode.weight", "decode.bias"}] * 3
    expected = first["decode.weight"]
    for step, state in enumerate(states, start=1):
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * state["model"]["decode.weight"]
    torch.testing.assert_close(states[-1]["average"]["decode.weight"], expected)
    saved, last = torch.load(tmp_path / "run" / "model" / "model.pt", weights_only=True), states[-1]
    assert_same(dict(saved), {**last["model"], **last["average"]})
    assert saved["passes"] == 3
    assert not torch.equal(saved["decode.weight"], last["model"]["decode.weight"])


def test_probes_see_the_average_and_training_does_not(tmp_path: Path) -> None:
    run(make(tmp_path / "plain", checkpoint_every=3), dropout=0.2)
    run(make(tmp_path / "averaged", checkpoint_every=3, ema=0.9), dropout=0.2)
    plain, averaged = final_state(tmp_path / "plain"), final_state(tmp_path / "averaged")
    assert "average" not in plain
    assert_same(plain["model"], averaged["model"])
    assert_same(plain["optimizer"], averaged["optimizer"])
    assert rows(tmp_path / "plain") == rows(tmp_path / "averaged")
    for name, weights in (("plain", plain["model"]), ("averaged", averaged["average"])):
        last = (tmp_path / name / "probes.csv").read_text().splitlines()[-1]
        assert float(last.split(",")[1]) == pytest.approx(float(weights["encode.weight"].abs().mean()))


def test_a_stopped_and_continued_run_has_the_same_average(tmp_path: Path) -> None:
    run(make(tmp_path / "whole", ema=0.9), dropout=0.2)
    config = make(tmp_path / "parts", ema=0.9)
    task = ToyTask(config, dropout=0.2)
    stop_at(task, 4)
    assert fit(task, config, quiet()).status == "preempted"
    assert run(config, dropout=0.2).status == "finished"
    a, b = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    for key in ("model", "average", "optimizer"):
        assert_same(a[key], b[key])
    saved = [torch.load(tmp_path / name / "model" / "model.pt", weights_only=True) for name in ("whole", "parts")]
    assert_same(dict(saved[0]), dict(saved[1]))


def test_another_decay_is_refused_and_a_run_of_before_goes_on(tmp_path: Path) -> None:
    config = make(tmp_path / "run")
    task = ToyTask(config)
    stop_at(task, 4)
    fit(task, config, quiet())
    path = tmp_path / "run" / "config.yaml"
    record = yaml.safe_load(path.read_text())
    del record["training"]["ema"]  # which earlier versions did not have
    path.write_text(yaml.safe_dump(record))
    averaged = replace(config, training=replace(config.training, ema=0.9))
    with pytest.raises(ValueError, match=r"--training\.ema was 0\.0, is 0\.9"):
        run(averaged)
    path.unlink()
    with pytest.raises(ValueError, match=r"the average in the checkpoint of step 5 .* missing encode\.weight"):
        run(averaged)
    assert run(config).status == "finished"


def test_two_processes_equal_one(tmp_path: Path) -> None:
    config = program_config(str(tmp_path / "one"), 0, ema=0.9)
    fit(ToyTask(config), config, quiet())
    ends = ended_together(toy_task.main, str(tmp_path / "two"), "0", "0", "0", "0.9")
    assert [code for code, _ in ends] == [0, 0], ends
    assert_close(final_state(tmp_path / "one")["average"], final_state(tmp_path / "two")["average"])
    saved = torch.load(tmp_path / "two" / "model" / "model.pt", weights_only=True)
    assert_same(dict(saved), final_state(tmp_path / "two")["average"])


def two_share_out(path: Path, strategy: str = "fsdp", stop: int = -1) -> None:
    ends = ended_together(sharded_toy.main, str(path), strategy, str(stop), "float32", "0.9")
    assert [code for code, _ in ends] == [PREEMPTED_EXIT_CODE if stop > 0 else 0] * 2, ends


def alone(path: Path) -> None:
    config = block_config(str(path), "ddp", ema=0.9)
    assert fit(BlockTask(config), config, quiet()).status == "finished"


def test_stopped_on_two_shared_out_and_continued_on_one(tmp_path: Path) -> None:
    alone(tmp_path / "whole")
    two_share_out(tmp_path / "run", stop=13)
    alone(tmp_path / "run")
    assert_close(final_state(tmp_path / "whole")["average"], final_state(tmp_path / "run")["average"])


@pytest.mark.slow
def test_two_that_share_the_model_out_equal_one_across_a_stop(tmp_path: Path) -> None:
    alone(tmp_path / "one")
    two_share_out(tmp_path / "whole")
    two_share_out(tmp_path / "parts", stop=13)
    shutil.copytree(tmp_path / "parts", tmp_path / "both")
    two_share_out(tmp_path / "parts")
    two_share_out(tmp_path / "both", "ddp", stop=19)
    two_share_out(tmp_path / "both")  # from one file
    one, whole, parts, both = (final_state(tmp_path / name) for name in ("one", "whole", "parts", "both"))
    for key in ("model", "average", "optimizer"):
        assert_same(whole[key], parts[key])
    assert_close(one["average"], whole["average"])
    assert_close(one["average"], both["average"])
    saved = torch.load(tmp_path / "whole" / "model" / "model.pt", weights_only=True)
    assert_same(dict(saved), {**whole["model"], **whole["average"]})
