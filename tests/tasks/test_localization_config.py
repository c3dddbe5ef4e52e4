"""Recipes of localization: what they set, what overrides them, what is refused."""

from __future__ import annotations

import pytest

from deepavfusion.arguments import UsageError, parse_arguments
from deepavfusion.configuration import DataConfig
from deepavfusion.evaluation.config import named_places
from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig
from deepavfusion.tasks.localization_config import LocalizationConfig
from deepavfusion.tasks.segmentation_config import SegmentationConfig
from deepavfusion.training.run_folder import compare_configs

BASE = ["--from", "runs/a", "--data.source", "clips", "--run_dir", "runs/b"]
EVALUATION = ["--run", "runs/a", "--data.source", "clips"]


def test_recipes_and_what_overrides_them() -> None:
    own = parse_arguments(LocalizationConfig, BASE)
    assert (own.recipe, own.contrast.mismatch_weight, own.contrast.silence_share) == ("self_supervised", 1.0, 0.3)
    assert (own.optim.blr, own.optim.layer_decay, own.training.batch_size) == (3e-4, 0.75, 256)
    told = parse_arguments(LocalizationConfig, [*BASE, "--recipe", "supervised", "--head.layers", "[0,2]"])
    assert (told.contrast.mismatch_weight, told.contrast.silence_share, told.contrast.collage_weight) == (0.5, 1.0, 0.0)
    assert told.head.layers == (0, 2)
    written = LocalizationConfig.with_recipe(
        "supervised", run_dir="runs/b", from_="runs/a", data=DataConfig(source="clips"), head={"layers": [0, 2]}
    )
    assert written == told


def test_mistakes_are_named() -> None:
    for words, message in (
        (["--boxes", "b.csv"], "--boxes b.csv: only --recipe supervised uses them"),
        (["--contrast.silence_share", "1.5"], r"--contrast\.silence_share 1\.5 must be a probability"),
        (
            ["--contrast.mismatch_weight", "0", "--contrast.collage_weight", "0"],
            "both 0: there is nothing to learn from",
        ),
        (["--recipe", "supervised", "--contrast.collage_weight", "1"], "makes no collages; set it to 0"),
        (["--head.top_share", "0"], r"--head\.top_share 0\.0 must be above 0"),
        (["--head.stride", "3"], r"--head\.stride 3 must be a power of 2, or 0"),
        (["--optim.blr", "0.3"], r"--optim\.blr 0\.3 .* --recipe self_supervised was tuned"),
        (["--tune_encoder", "false"], "--freeze_encoder true stands for --tune_encoder false"),
        (["--drop_path", "1"], r"--drop_path 1\.0 must be in \[0, 1\)"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_arguments(LocalizationConfig, [*BASE, *words])


def test_settings_without_effect_are_told() -> None:
    words = ["--freeze_encoder", "true", "--drop_path", "0.1", "--boxes_format", "vggss"]
    assert parse_arguments(LocalizationConfig, [*BASE, *words]).without_effect() == [
        "--drop_path has no effect on a frozen encoder",
        "--boxes_format has no effect without --boxes",
    ]
    words = ["--recipe", "supervised", "--head.pooling", "logsumexp"]
    assert len(parse_arguments(LocalizationConfig, [*BASE, *words]).without_effect()) == 1
    for recipe in ("supervised", "self_supervised"):
        assert parse_arguments(LocalizationConfig, [*BASE, "--recipe", recipe]).without_effect() == []


def test_runs_of_earlier_versions_go_on_with_their_frozen_or_trained_encoder() -> None:
    for words, before in (([], {"tune_encoder": True}), (["--freeze_encoder", "true"], {"tune_encoder": False})):
        now = parse_arguments(LocalizationConfig, [*BASE, *words]).to_dict()
        assert compare_configs({**{k: v for k, v in now.items() if k != "freeze_encoder"}, **before}, now) == []
    for recipe, frozen in (("frozen", True), ("finetune", False)):
        now = parse_arguments(SegmentationConfig, [*BASE, "--recipe", recipe]).to_dict()
        assert now["freeze_encoder"] == frozen
        assert compare_configs({k: v for k, v in now.items() if k != "freeze_encoder"}, now) == []


def test_evaluation_settings() -> None:
    config = parse_arguments(EvaluateLocalizationConfig, [*EVALUATION, "--baselines", "[a=runs/b, c=untrained:runs/d]"])
    assert named_places(config.baselines) == {"a": "runs/b", "c": "untrained:runs/d"}
    for words, message in (
        (["--baselines", "[runs/b]"], r"--baselines 'runs/b' must be NAME=PLACE"),
        (["--baselines", "[a=x,a=y]"], "--baselines names 'a' twice"),
        (["--pairs", "p.csv"], "--pairs p.csv: they are scored together with clips"),
        (["--boxes_format", "vggss"], "--boxes_format vggss needs --boxes"),
        (["--truth", "false", "--boxes", "b.csv"], "--truth false: nothing is scored without ground truth"),
        (["--shifts", "0"], "--shifts 0 must be at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_arguments(EvaluateLocalizationConfig, [*EVALUATION, *words])
