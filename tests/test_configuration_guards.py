"""Settings are checked against each other before anything is built; messages name the flag and the fix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deepavfusion.arguments import RECIPES, parse_arguments
from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.models import EarlyFusionConfig
from deepavfusion.tasks.classification_config import ClassificationConfig
from deepavfusion.tasks.localization_config import LocalizationConfig
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.tasks.segmentation_config import SegmentationConfig
from deepavfusion.tasks.separation_config import SeparationConfig


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


@pytest.mark.parametrize("ema", [-0.1, 1.0, 2.0, float("nan")])
def test_the_decay_of_an_average_is_below_1(ema: float) -> None:
    with pytest.raises(ValueError, match=rf"ema {ema} must be 0 or a decay below 1: give --training\.ema 0\.999"):
        TrainingConfig(ema=ema)


def test_warm_up_is_a_share_of_a_run_of_any_length() -> None:
    assert OptimConfig().warmup_epochs == 40  # of 200
    assert OptimConfig(epochs=4).warmup_epochs == pytest.approx(0.8)
    assert OptimConfig(epochs=4, warmup_share=0.5).warmup_epochs == 2
    assert OptimConfig(epochs=4, warmup_share=0.5, warmup_epochs=1).warmup_epochs == 1
    with pytest.raises(ValueError, match=r"warmup_epochs 5 must lie between 0 and epochs 4: .*--optim\.warmup_share"):
        OptimConfig(epochs=4, warmup_epochs=5)
    with pytest.raises(ValueError, match=r"warmup_share 1\.5 must be in \[0, 1\]"):
        OptimConfig(warmup_share=1.5)


OWN_LENGTHS = {
    "audioset": (200, 40),
    "bandstand": (24, 24 * 0.05),
    "finetune_audioset": (100, 20),
    "finetune_vggsound": (100, 20),
    "probe_audioset": (60, 10),
    "probe_vggsound": (60, 10),
    "reconstruction": (8, 0.4),
    "stage": (8, 0.4),
    "tiny": (100, 5),
    "vggsound": (200, 40),
}
"""Epochs and epochs of warm-up of each recipe, as they were published or tuned."""


@pytest.mark.parametrize("name", sorted(OWN_LENGTHS))
def test_recipes_fit_every_length_and_keep_their_warm_up_at_their_own(name: str) -> None:
    kind, required = PretrainConfig, []
    if name.startswith(("probe", "finetune")):
        kind, required = ClassificationConfig, ["--from", "x"]
    words = ["--config", name, "--run_dir", "a", "--data.source", "b", *required]
    assert sorted(OWN_LENGTHS) == sorted(path.stem for path in RECIPES.glob("*.yaml"))
    own = parse_arguments(kind, words).optim
    assert (own.epochs, own.warmup_epochs) == OWN_LENGTHS[name]  # exactly: the schedule is the same to the bit
    if kind is PretrainConfig:
        assert parse_arguments(kind, words).without_effect() == []
    short = parse_arguments(kind, [*words, "--optim.epochs", "4"]).optim
    assert short.warmup_epochs == pytest.approx(4 * OWN_LENGTHS[name][1] / OWN_LENGTHS[name][0])
    old = parse_arguments(kind, [*words, "--optim.warmup_epochs", "3"]).optim  # as a YAML file of before says it
    assert old.warmup_epochs == 3


@pytest.mark.parametrize(
    ("kind", "recipes"),
    [
        (ClassificationConfig, {"probe": (60, 10), "attentive": (60, 10), "finetune": (100, 20)}),
        (LocalizationConfig, {"self_supervised": (50, 5), "synchrony": (50, 5), "supervised": (50, 5)}),
        (SegmentationConfig, {"finetune": (100, 20), "frozen": (60, 10)}),
        (SeparationConfig, {"": (300, 40)}),
    ],
)
def test_every_task_can_be_trained_for_a_few_epochs(kind: Any, recipes: dict[str, tuple[float, float]]) -> None:
    for recipe, (epochs, warmup) in recipes.items():
        words = ["--run_dir", "a", "--data.source", "b", "--from", "x", *(["--recipe", recipe] if recipe else [])]
        words += ["--boxes", "x.json"] if kind is LocalizationConfig and recipe == "supervised" else []
        own = parse_arguments(kind, words).optim
        assert (own.epochs, own.warmup_epochs) == (epochs, warmup)
        assert parse_arguments(kind, [*words, "--optim.epochs", "4"]).optim.warmup_epochs == pytest.approx(
            4 * warmup / epochs
        )
