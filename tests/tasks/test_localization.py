"""Training for localization on little worlds: pairs, targets, what is learned, what is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.audio import LOG_FLOOR
from deepavfusion.data.clips import read_manifest, write_manifest
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.scenes.sounding_masks import SoundingMasks
from deepavfusion.data.synchrony import UNDECIDED
from deepavfusion.models import EarlyFusionEncoder, Localizer
from deepavfusion.models.localizer import LocalizerOutput
from deepavfusion.tasks.localization import Localization
from deepavfusion.tasks.sound_pairs import audible, cells, collages, draw_partners, strangers
from deepavfusion.training.loop import fit
from tests.tasks.classification_runs import quiet
from tests.tasks.localization_runs import ENCODER, make, write_encoder, write_world

CPU = torch.device("cpu")
WHOLE = {"crop_area": (1, 1), "crop_ratio": (1, 1), "flip": 0.0, "gain_db": 0.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), 14, "segmentation_train", "localization", "val")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def first_batch(task: Localization, size: int = 4) -> Batch:
    return next(iter(task.loader(StepSampler(size, 1, 1, 0, 0, 1), 0, CPU)))


def made_batch(ids: Sequence[str], labels: Sequence[str | None] | None = None, **changes: torch.Tensor) -> Batch:
    count = len(ids)
    torch.manual_seed(0)
    batch = Batch(
        image=torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8),
        waveform=0.1 * torch.randn(count, 32000),
        image_present=torch.ones(count, dtype=torch.bool),
        audio_present=torch.ones(count, dtype=torch.bool),
        image_noise=None,
        audio_noise=None,
        sample_numbers=list(range(count)),
        ids=list(ids),
        labels=list(labels or [None] * count),
        failures=[],
    )
    return replace(batch, **changes)  # type: ignore[arg-type]


def test_strangers_are_other_clips_without_a_common_label() -> None:
    batch = made_batch(["x", "y", "x", "z"], ["dog|cat", "cat", None, "owl"])
    assert strangers(batch).int().tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


def test_strangers_of_many_are_those_that_a_slow_look_finds() -> None:
    rng = np.random.default_rng(0)
    ids = [f"clip{i}" for i in rng.integers(0, 40, 64)]
    cells = ["|".join(rng.choice(list("abcdefgh"), rng.integers(0, 4))) or None for _ in ids]
    batch = made_batch(ids, cells)
    for i, row in enumerate(strangers(batch).tolist()):
        mine = set((cells[i] or "").split("|")) - {""}
        assert row == [ids[i] != b and not mine & set((c or "").split("|")) for b, c in zip(ids, cells, strict=True)]


def test_partners_are_allowed_ones_and_different_where_they_can_be() -> None:
    allowed = torch.tensor([[0, 1, 1, 1, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]).bool()
    seen: list[set[int]] = [set(), set(), set()]
    for seed in range(30):
        torch.manual_seed(seed)
        drawn = draw_partners(torch.cat([allowed, torch.zeros(2, 5, dtype=torch.bool)]), 3)[:3]
        for row, partners in enumerate(drawn.tolist()):
            assert set(partners) <= set(allowed[row].nonzero()[:, 0].tolist())
            assert len(set(partners)) == min(3, int(allowed[row].sum()))
            seen[row].add(partners[0])
    assert seen == [{1, 2, 3}, {0, 3}, {4}]


def test_cells_of_a_collage_are_its_pictures() -> None:
    image = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 8, 12)
    made = collages(image, torch.tensor([[3, 1, 0, 4]]))
    assert made.shape == (1, 3, 8, 12)
    assert [set(part.flatten().tolist()) for part in cells(made)[0, 0]] == [{3.0}, {1.0}, {0.0}, {4.0}]


def test_quiet_sound_and_lacking_pictures_are_no_examples(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Localization(make("self_supervised", world, encoder, tmp_path))
    waveform = 0.1 * torch.ones(4, 32000)
    waveform[1] *= 1e-3  # -80 dB
    batch = made_batch(
        "abcd",
        waveform=waveform,
        image_present=torch.tensor([True, True, False, True]),
        audio_present=torch.tensor([True, True, True, False]),
    )
    assert audible(batch, -60).tolist() == [True, False, True, False]
    assert task.counts(batch) == {"match": 1, "mismatch": 3, "collage": 1}
    alone = made_batch("aaaa")
    assert task.counts(alone) == {"match": 4, "mismatch": 4, "collage": 0}
    torch.manual_seed(0)
    inputs = task.inputs(alone)  # no other clip: silence is all that is left
    assert (inputs["audio"][4:8] - math.log10(LOG_FLOOR)).abs().max() < 1e-6
    terms = task.loss_terms(task.build_model(), inputs)
    assert terms["collage"].item() == 0
    assert all(term.isfinite() for term in terms.values())


def test_mismatched_pairs_never_have_their_own_sound(world: Path, encoder: Path, tmp_path: Path) -> None:
    settings = {"contrast": {"silence_share": 0.5}}
    task = Localization(make("self_supervised", world, encoder, tmp_path, **settings))
    batch, silent, foreign = made_batch("abcdef"), 0, 0
    for seed in range(10):
        torch.manual_seed(seed)
        inputs = task.inputs(batch)
        image, audio = inputs["image"].split(6), inputs["audio"].split(6)
        assert torch.equal(image[0], image[1])
        for i in range(6):
            is_silent = bool((audio[1][i] + 7 < 1e-6).all())
            donors = [j for j in range(6) if torch.equal(audio[1][i], audio[0][j])]
            assert is_silent or (len(donors) == 1 and donors != [i])
            silent, foreign = silent + is_silent, foreign + (not is_silent)
        assert torch.equal(audio[2], audio[0])  # collages are heard with the sound of the picture in `cell`
        own = torch.nn.functional.avg_pool2d(image[0], 2)
        quarters = cells(image[2])  # (6, 3, 4, 256)
        for i in range(6):
            assert torch.equal(quarters[i, :, inputs["cell"][i]], own[i].flatten(1))
    assert min(silent, foreign) >= 15


@pytest.mark.parametrize("stride", [0, 2])
def test_supervised_targets_are_the_truth_of_each_cell(stride: int, world: Path, encoder: Path, tmp_path: Path) -> None:
    config = make("supervised", world, encoder, tmp_path, splits=("segmentation_train",), data=WHOLE)
    config = replace(config, head=replace(config.head, stride=stride))
    side = stride or 8
    task = Localization(config)
    batch = first_batch(task)
    assert batch.truth is not None
    targets = task.inputs(batch)["targets"]
    assert targets.shape == (4, 1, 32 // side, 32 // side)
    for i in range(4):
        for row in range(32 // side):
            for column in range(32 // side):
                part = batch.truth[i, side * row : side * row + side, side * column : side * column + side]
                assert targets[i, 0, row, column].item() == pytest.approx((part > 0).float().mean().item())
    assert targets.max() > 0.3
    by_class = Localization(replace(config, classes="bandstand"))
    each = by_class.inputs(first_batch(by_class))["targets"]
    assert each.shape == (4, 24, 32 // side, 32 // side)
    torch.testing.assert_close(each.sum(dim=1, keepdim=True), targets)


def test_the_supervised_recipe_overfits_one_batch(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Localization(make("supervised", world, encoder, tmp_path, splits=("segmentation_train",), data=WHOLE))
    torch.manual_seed(0)
    model = task.build_model()
    inputs, optimizer = task.inputs(first_batch(task)), torch.optim.Adam(model.parameters(), lr=1e-2)
    assert task.loss_terms(model, inputs)["patch"].item() == pytest.approx(math.log(2), abs=0.1)
    for _ in range(100):
        loss = sum(task.loss_terms(model, inputs).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        maps = model(*(inputs[name][:4] for name in ("image", "audio", "image_present", "audio_present"))).maps
        silent = model(inputs["image"][4:], inputs["audio"][4:]).maps
    assert (maps.sigmoid() - inputs["targets"]).abs().mean() < 0.02
    assert silent.sigmoid().max() < 0.1  # the same pictures in silence


def test_the_self_supervised_recipe_tells_whose_sound_it_is(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Localization(make("self_supervised", world, encoder, tmp_path, contrast={"silence_share": 0.5}))
    torch.manual_seed(0)
    model = task.build_model()
    inputs, optimizer = task.inputs(first_batch(task)), torch.optim.Adam(model.parameters(), lr=1e-2)
    before = task.loss_terms(model, inputs)
    assert before["collage"].item() == pytest.approx(math.log(4), abs=0.1)
    for _ in range(100):
        terms = task.loss_terms(model, inputs)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert all(term.item() < 0.1 for term in terms.values())


def test_undecided_patches_are_not_learned_from(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Localization(make("synchrony", world, encoder, tmp_path, contrast={"mismatch_share": 0.5}))
    batch = made_batch(["a", "b", "c", "d"])
    truth = torch.zeros(4, 32, 32, dtype=torch.uint8)
    truth[:, :8, :8] = 1  # one patch of the source
    truth[:, :8, 8:12] = 1  # one half of it, the other half is not known
    truth[:, :8, 12:16] = UNDECIDED
    truth[:, 8:, :] = UNDECIDED
    inputs = task.inputs(replace(batch, truth=truth))
    assert inputs["targets"][0, 0, 0].tolist() == [1, pytest.approx(1), 0, 0]
    assert inputs["decided"][0, 0, 0].tolist() == [1, 0.5, 1, 1]
    assert inputs["decided"][:, :, 1:].abs().max() == 0
    assert len(inputs["image"]) == 6  # half of the pictures once more, in silence
    assert task.counts(replace(batch, truth=truth)) == {"patch": 4, "mismatch": 2}
    model = task.build_model()
    maps = torch.zeros(6, 1, 4, 4, requires_grad=True)
    model.forward = lambda *inputs: LocalizerOutput(maps, maps.amax(dim=(2, 3)))  # type: ignore[method-assign, assignment]
    task.loss_terms(model, inputs)["patch"].backward()
    assert maps.grad is not None
    assert maps.grad[:4, 0, 1:].abs().max() == 0
    # Sigmoid(0) is 1/2; a loss per sample is a mean over 3.5 decided patches, and there are 4 samples.
    torch.testing.assert_close(maps.grad[0, 0, 0], torch.tensor([-0.5, -0.25, 0.5, 0.5]) / (3.5 * 4))


@pytest.mark.parametrize("recipe", ["self_supervised", "synchrony", "supervised"])
def test_a_run_ends_with_a_model_pictures_and_a_probe(recipe: str, world: Path, encoder: Path, tmp_path: Path) -> None:
    config = make(recipe, world, encoder, tmp_path, freeze_encoder=recipe == "self_supervised")  # type: ignore[arg-type]
    task = Localization(config)
    assert fit(task, config, quiet()).status == "finished"
    model = Localizer.from_pretrained(tmp_path / "model")
    before = EarlyFusionEncoder.from_pretrained(encoder).state_dict()
    kept = {name for name, value in model.encoder.state_dict().items() if torch.equal(value, before[name])}
    if recipe != "self_supervised":
        assert kept == {name for name in before if name.endswith(("pos_embed", "k.bias"))}
    else:
        assert kept == set(before)
    assert list((tmp_path / "pictures").glob("localization_*.png"))
    head, *rows = (tmp_path / "probes.csv").read_text().splitlines()
    assert {"ciou50", "auc", "num_clips"} <= set(head.split(","))
    assert rows


def test_clips_left_out_are_counted(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Localization(make("self_supervised", world, encoder, tmp_path))
    splits = [clip.split for clip in read_manifest(str(world))]
    assert {clip.split for clip in task.clips} == {"segmentation_train"}
    assert f"{splits.count('localization') + splits.count('val')} held out" in task.summary
    names = [clip.id for clip in task.clips][:2]
    (tmp_path / "test.csv").write_text(f'{names[0]},drum\n"{names[1]}",bell\nno_such_clip,bell\n')
    dropped = Localization(make("self_supervised", world, encoder, tmp_path, exclude=str(tmp_path / "test.csv")))
    assert len(dropped.clips) == len(task.clips) - 2
    assert f"2 excluded by {tmp_path / 'test.csv'}" in dropped.summary
    chosen = Localization(make("self_supervised", world, encoder, tmp_path, splits=("localization",)))
    assert {clip.split for clip in chosen.clips} == {"localization"}
    with pytest.raises(ValueError, match="none of 14 clips is left to train on"):
        Localization(make("self_supervised", world, encoder, tmp_path, splits=("no_such",)))
    with pytest.raises(ValueError, match=r"exclude .*none\.txt: cannot be read"):
        Localization(make("self_supervised", world, encoder, tmp_path, exclude=str(tmp_path / "none.txt")))


def test_boxes_train_and_clips_without_are_counted(world: Path, encoder: Path, tmp_path: Path) -> None:
    clips = [clip for clip in read_manifest(str(world)) if clip.split == "segmentation_train"]
    (tmp_path / "b.csv").write_text(
        f"id,label,x1,y1,x2,y2\n{clips[0].id},bell-chime,0,0,0.5,0.5\n{clips[0].id},drum-brass,0.5,0.5,1,1\n"
        f"{clips[1].id},bell-chime,0.5,0,1,0.5\n"
    )
    config = make("supervised", world, encoder, tmp_path, boxes=str(tmp_path / "b.csv"), data=WHOLE)
    task = Localization(config)
    assert f"{len(clips) - 2} without boxes" in task.summary
    batch = first_batch(task, 2)
    by_id = dict(zip(batch.ids, task.inputs(batch)["targets"][:, 0].int().tolist(), strict=True))
    assert by_id[clips[0].id] == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert by_id[clips[1].id] == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    by_class = Localization(replace(config, classes="bandstand"))
    batch = first_batch(by_class, 2)
    each = by_class.inputs(batch)["targets"][batch.ids.index(clips[0].id)]
    names = {by_class.model_config.classes[k]: int(each[k].sum()) for k in each.flatten(1).any(dim=1).nonzero()[:, 0]}
    assert names == {"bell-chime": 4, "drum-brass": 4}


def test_one_map_per_class_learns_from_labels(world: Path, encoder: Path, tmp_path: Path) -> None:
    rows = [
        replace(clip, label="a|b" if i % 2 else "c", split=None) for i, clip in enumerate(read_manifest(str(world)))
    ]
    write_manifest(str(tmp_path / "clips.csv"), rows)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    config = make("self_supervised", tmp_path / "clips.csv", encoder, tmp_path, classes=str(tmp_path / "classes.txt"))
    task = Localization(config)
    torch.manual_seed(0)
    model, batch = task.build_model(), first_batch(task)
    inputs = task.inputs(batch)
    assert inputs["targets"].tolist() == [[1, 1, 0] if label == "a|b" else [0, 0, 1] for label in batch.labels]
    terms = task.loss_terms(model, inputs)
    assert set(terms) == {"match", "mismatch", "collage"}
    assert all(term.isfinite() for term in terms.values())
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="does not name the labels c"):
        Localization(config)


def test_collages_need_an_even_grid(world: Path, tmp_path: Path) -> None:
    odd = write_encoder(tmp_path / "odd", replace(ENCODER, image_size=(24, 32)))
    with pytest.raises(ValueError, match=r"these maps have \[3, 4\]; set it to 0"):
        Localization(make("self_supervised", world, odd, tmp_path))
    Localization(make("self_supervised", world, odd, tmp_path, contrast={"collage_weight": 0.0}))


def test_training_masks_are_those_of_the_world(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Localization(make("supervised", world, encoder, tmp_path, splits=("segmentation_train",), data=WHOLE))
    batch = first_batch(task)
    assert batch.truth is not None
    clips = {clip.id: clip for clip in task.clips}
    for name, mask in zip(batch.ids, batch.truth, strict=True):
        frames = [SoundingMasks().read(clips[name], t, 0.0, 2.0) for t in SoundingMasks().times(clips[name])]
        assert any((torch.from_numpy(whole[1::2, 1::2]) == mask).float().mean() > 0.98 for whole in frames)
