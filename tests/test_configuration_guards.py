"""Settings are checked against each other before anything is built; messages name the flag and the fix."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.models import EarlyFusionConfig
from deepavfusion.tasks.pretraining_config import PretrainConfig


def make(**sections: object) -> PretrainConfig:
    return PretrainConfig(run_dir="runs/a", data=DataConfig(source="videos"), **sections)  # type: ignore[arg-type]


@pytest.mark.parametrize(("blr", "batch_size"), [(0.3, 512), (0.3, 16), (1e-8, 512)])
def test_rates_of_other_recipes_are_refused(blr: float, batch_size: int) -> None:
    training = TrainingConfig(batch_size=batch_size)
    with pytest.raises(ValueError, match=rf"optim.blr {blr:g} .*tuned with --optim.blr 0.00015.*unusual_blr true"):
        make(optim=OptimConfig(blr=blr), training=training)
    make(optim=OptimConfig(blr=blr, unusual_blr=True), training=training)


@pytest.mark.parametrize(("blr", "batch_size"), [(1.5e-4, 1), (1e-3, 2048), (2e-2, 4), (1.5e-5, 512)])
def test_rates_that_people_use_pass(blr: float, batch_size: int) -> None:
    config = make(optim=OptimConfig(blr=blr), training=TrainingConfig(batch_size=batch_size))
    assert (config.optim.blr, config.training.batch_size) == (blr, batch_size)


def test_settings_in_vain_are_named() -> None:
    assert make().without_effect() == []
    config = make(model=EarlyFusionConfig(fusion_layers="none", fusion="dense"), optim=OptimConfig(pretrained_ramp=0.2))
    assert config.without_effect() == [
        "--optim.pretrained_ramp has no effect without --init.image or --init.audio",
        "--model.fusion has no effect when --model.fusion_layers is none",
    ]
    config = replace(config, init=replace(config.init, image="mae.pth", transpose_audio_patches=False))
    assert "--init.transpose_audio_patches has no effect without --init.audio" in config.without_effect()


def test_failure_budget_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"max_failures 1\.5 must be a share"):
        TrainingConfig(max_failures=1.5)
