"""Recipes: what they set, what overrides them, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepavfusion.arguments import UsageError, parse_arguments
from deepavfusion.configuration import DataConfig, setting
from deepavfusion.tasks.classification_config import RECIPES, ClassificationConfig

BASE = ["--from", "runs/a", "--data.source", "clips", "--run_dir", "runs/b"]


def test_recipes_are_the_published_ones() -> None:
    probe = parse_arguments(ClassificationConfig, [*BASE, "--recipe", "probe"])
    assert (probe.optim.optimizer, probe.optim.blr, probe.optim.weight_decay) == ("lars", 0.3, 0.0)
    assert (probe.optim.epochs, probe.optim.warmup_epochs, probe.training.batch_size) == (60, 10, 1024)
    assert probe.augmentation.mixup == probe.augmentation.label_smoothing == probe.augmentation.drop_path == 0
    tuned = parse_arguments(ClassificationConfig, BASE)
    assert tuned.recipe == "finetune"
    assert (tuned.optim.optimizer, tuned.optim.blr, tuned.optim.layer_decay) == ("adamw", 3e-4, 0.75)
    assert (tuned.optim.epochs, tuned.optim.warmup_epochs, tuned.training.batch_size) == (100, 20, 512)
    given = tuned.augmentation
    assert (given.mixup, given.label_smoothing, given.drop_path) == (1.0, 0.1, 0.2)


def test_what_is_given_overrides_the_recipe_from_words_yaml_and_python(tmp_path: Path) -> None:
    words = [*BASE, "--recipe", "probe", "--optim.blr", "0.1", "--training.batch_size", "256"]
    told = parse_arguments(ClassificationConfig, words)
    assert (told.optim.blr, told.optim.optimizer, told.training.batch_size) == (0.1, "lars", 256)
    (tmp_path / "x.yaml").write_text("recipe: probe\noptim: {blr: 0.1}\ntraining: {batch_size: 256}\n")
    assert parse_arguments(ClassificationConfig, ["--config", str(tmp_path / "x.yaml"), *BASE]) == told
    written = ClassificationConfig.with_recipe(
        "probe",
        run_dir="runs/b",
        from_="runs/a",
        data=DataConfig(source="clips"),
        optim={"blr": 0.1},
        training={"batch_size": 256},
    )
    assert written == told


@pytest.mark.parametrize("name", ["probe_vggsound", "finetune_vggsound", "probe_audioset", "finetune_audioset"])
def test_shipped_recipes_read_and_agree_with_their_recipe(name: str) -> None:
    config = parse_arguments(ClassificationConfig, ["--config", name, *BASE])
    assert config.recipe == name.split("_")[0]
    assert config.labels == ("multi" if "audioset" in name else "single")
    for flag, value in RECIPES[config.recipe].items():
        assert setting(config, flag) == value, flag


def test_mistakes_are_named() -> None:
    for words, message in (
        (["--recipe", "probe"], "missing --run_dir, --data.source, --from"),
        ([*BASE, "--recipe", "probes"], "--recipe: Expected"),
        ([*BASE, "--mixup", "1"], r"unknown option --mixup; did you mean --augmentation\.mixup"),
        ([*BASE, "--optim.blr", "0.3"], r"--optim\.blr 0\.3 .* --recipe finetune was tuned with --optim\.blr 0\.0003"),
        ([*BASE, "--recipe", "probe", "--optim.optimizer", "adamw"], r"--optim\.blr 0\.3 .* --recipe attentive"),
        ([*BASE, "--recipe", "probe", "--pooling", "attentive"], r"--pooling attentive: --recipe probe pools mean"),
        (
            [*BASE, "--recipe", "probe", "--freeze_encoder", "false"],
            "use --recipe finetune",
        ),
        ([*BASE, "--keep_heads", "true", "--heads", "[image]"], r"--keep_heads true: .* takes --heads and --pooling"),
        ([*BASE, "--keep_heads", "true", "--untrained", "true"], r"--keep_heads true: heads belong to"),
        ([*BASE, "--features", "x.npz"], r"--features x\.npz: .*--recipe must be probe or attentive"),
        ([*BASE, "--augmentation.mixup", "-1"], r"--augmentation\.mixup -1"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_arguments(ClassificationConfig, words)


def test_settings_without_effect_are_told() -> None:
    words = [*BASE, "--recipe", "probe", "--optim.layer_decay", "0.5", "--augmentation.drop_path", "0.1"]
    told = parse_arguments(ClassificationConfig, words).without_effect()
    assert told == [
        "--optim.layer_decay has no effect on a frozen encoder",
        "--augmentation.drop_path has no effect on a frozen encoder",
    ]
    assert parse_arguments(ClassificationConfig, BASE).without_effect() == []
