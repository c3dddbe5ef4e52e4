"""Audio-visual segmentation on a pre-trained encoder (section 5 of the method).

Shape legend: `B` batch, `H W` pixels, `S` samples of sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepavfusion.data.clip import storage_of
from deepavfusion.data.clips import Clip, ClipError, clips_where, column_of, find_clips, quarantined
from deepavfusion.data.dataset import Batch
from deepavfusion.data.framed_clips import lacks_mask
from deepavfusion.data.loading import ClipLoader, StepSampler, training_loader
from deepavfusion.data.replaced_sound import ReplacedSoundStream
from deepavfusion.data.scenes.sounding_masks import sounding_looks
from deepavfusion.data.sets.avsbench import read_label2idx
from deepavfusion.data.sets.vocabularies import SHIPPED, shipped_classes
from deepavfusion.data.splits import SPELLINGS, of_splits, spellings_of, spread
from deepavfusion.data.views import TrainingView
from deepavfusion.evaluation.loop import OneProcess, predict_all
from deepavfusion.evaluation.segmentation.drawings import draw_overlays
from deepavfusion.evaluation.segmentation.evaluator import MaskScores, SegmenterEvaluator
from deepavfusion.evaluation.segmentation.pictures import Picture, mask_truth
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.segmenter import Segmenter
from deepavfusion.models.segmenter_config import SegmenterConfig
from deepavfusion.storage.starting_point import load_resized
from deepavfusion.tasks import segmentation_loss as losses
from deepavfusion.tasks.encoder_task import EncoderTask, kept_config, starting_config
from deepavfusion.tasks.segmentation_config import SegmentationConfig
from deepavfusion.tasks.senses import seen_and_heard, told
from deepavfusion.training.intake import Need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PROBE_PICTURES = 500
"""Held-out pictures scored while training, so that watching stays cheaper than training."""
PROBE_BATCH = 16
NUM_PICTURES = 6
"""Overlays drawn while training."""
WORLD_SPLIT = "segmentation_train"
"""The training split of a Bandstand world."""


class Segmentation(EncoderTask[Segmenter]):
    """Train a segmenter on labelled pictures."""

    kind = "segmentation"

    def __init__(self, config: SegmentationConfig) -> None:
        """Lists pictures and classes.

        Raises:
            ValueError: no labelled pictures to train on, or no encoder where `from_` points.
        """
        self.config: SegmentationConfig = config
        found = find_clips(config.data.source)
        split, chosen = choose_split(found, config.split, config.data.source)
        labelled = clips_where(chosen, "path", lambda path: not lacks_mask(path))
        if not labelled:
            raise ValueError(f"{config.data.source}: none of {len(chosen)} frames of split {split} has a mask")
        self.clips: Sequence[Clip] = labelled
        classes = read_classes(config.classes, labelled) if config.classes else ()
        self.truth = mask_truth(labelled, classes)
        self.model_config = self._model_config(classes)
        self._watched = self._held_out(found)
        left_out = {
            "without mask": len(chosen) - len(labelled),
            "of other splits": len(found) - len(chosen),
            "quarantined": len(quarantined(config.data.source)),
        }
        notes = ", ".join([f"split {split}", *told(left_out)])
        kind = f"{len(classes)} classes" if classes else "one mask of what sounds"
        self.summary = f"{len(labelled)} pictures of {config.data.source} ({notes}), {kind}"

    @property
    def needs(self) -> Mapping[Need, str]:
        """Pictures, and sound unless the model is deaf."""
        needs: dict[Need, str] = {"picture": "segmentation needs images"}
        return {**needs, "sound": "take --modalities image"} if self.model_config.hears else needs

    def build_model(self) -> Segmenter:
        """The segmenter, from torch's global generator."""
        return self.set_up(Segmenter(self.model_config))

    def load_weights(self, encoder: EarlyFusionEncoder) -> str:
        """As for any task, with positions resampled for pictures of another size."""
        return load_resized(encoder, self.config.from_)

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Random views of the pictures and, through the same crops, of their masks."""
        view, seed = TrainingView.from_config(self.config.data, self.model_config.encoder), self.config.training.seed
        stream = ReplacedSoundStream(self.clips, view, seed, self.truth, self.config.replacements)
        return training_loader(stream, sampler, num_workers, device)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pictures there are, and those in which something sounds."""
        assert batch.truth is not None
        sounding = (batch.truth > 0).flatten(1).any(dim=1) & batch.image_present
        counts = {"cross_entropy": int(batch.image_present.sum()), "dice": int(sounding.sum())}
        return counts if self.config.decoder.dice else {"cross_entropy": counts["cross_entropy"]}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Normalised pictures, log-mel spectrograms and masks."""
        return {**seen_and_heard(batch, self.model_config.encoder.audio_size[0]), "truth": batch.truth}

    def loss_terms(self, model: Segmenter, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy, and Dice times its weight over the pictures in which something sounds."""
        logits = model(inputs["image"], inputs["audio"], inputs["image_present"], inputs["audio_present"])
        truth, present = inputs["truth"], inputs["image_present"]
        semantic = bool(self.model_config.classes)
        entropy = (losses.cross_entropy if semantic else losses.binary_cross_entropy)(logits, truth)
        terms = {"cross_entropy": losses.mean_where(entropy, present)}
        if self.config.decoder.dice:
            dice = (losses.semantic_dice if semantic else losses.binary_dice)(logits, truth)
            sounding = (truth > 0).flatten(1).any(dim=1) & present
            terms["dice"] = self.config.decoder.dice * losses.mean_where(dice, sounding)
        return terms

    def probe(self, model: Segmenter, device: torch.device) -> dict[str, float]:
        """IoU of held-out frames, and the share of the mask area left in silence; empty if there are no such frames."""
        if not self._watched:
            return {}
        found, areas = {}, {}
        for sound in ("own", "silence") if self.model_config.hears else ("own",):
            evaluator = SegmenterEvaluator(model, self._watched, self.truth, sound)
            predictions = predict_all(evaluator, OneProcess(device), PROBE_BATCH, self.config.data.num_workers)
            if not predictions.ids:
                return {}
            areas[sound] = float(predictions.values["area"].mean())
            if sound == "own":
                total = MaskScores.merged(evaluator.scores.values(), len(self.model_config.classes))
                found["miou"] = total.semantic.avss().miou if total.semantic else total.binary.avsbench().miou
                found["num_pictures"] = len(predictions.ids)
        if areas.get("silence") is not None and areas["own"] > 0:
            found["mask_left_in_silence"] = areas["silence"] / areas["own"]
        return found

    def pictures(self, model: Segmenter, device: torch.device) -> dict[str, Figure]:
        """True and predicted masks over held-out pictures, or training ones where there are none."""
        pictures = self._watched or [Picture(clip, i, 0) for i, clip in enumerate(self.clips)]
        chosen = dict.fromkeys(spread(range(len(pictures)), NUM_PICTURES), "")
        title = "held-out pictures" if self._watched else "training pictures"
        return {"masks": draw_overlays(model, pictures, self.truth, chosen, self.model_config.hears, title)}

    def _model_config(self, classes: Sequence[str]) -> SegmenterConfig:
        config, drop_path = self.config, 0.0 if self.config.freeze_encoder else self.config.drop_path
        if config.keep_heads:
            kept = kept_config(config.from_, SegmenterConfig, self.kind, classes)
            encoder = starting_config(config, config.encode_frames, kept.encoder)
            return replace(kept, encoder=replace(encoder, drop_path=drop_path))
        encoder = starting_config(config, config.encode_frames)
        size = config.image_size or encoder.image_size
        try:
            resized = replace(encoder, image_size=size, drop_path=drop_path)
            return SegmenterConfig(
                encoder=resized,
                classes=tuple(classes),
                decoder=config.decoder.form,
                decoder_dim=config.decoder.dim,
                stride=config.decoder.stride,
                layers=config.decoder.layers,
                modalities=config.modalities,
                positions_grid=encoder.image_grid if size != encoder.image_size else None,
            )
        except ValueError as error:
            message = str(error).replace("decoder_dim", "decoder.dim", 1)
            raise ValueError(f"decoder.{message}" if message.startswith(("layers", "stride")) else message) from None

    def _held_out(self, found: Sequence[Clip]) -> list[Picture]:
        """Pictures to watch, at most so many, evenly over the list."""
        if self.config.val_source is not None:
            rows = find_clips(self.config.val_source)
            if _storages(rows) != _storages(self.clips):
                raise ValueError(
                    f"val_source {self.config.val_source}: is stored in another way than {self.config.data.source}"
                )
        else:
            spellings = [*SPELLINGS["val"], *SPELLINGS["test"], WORLD_SPLIT.replace("train", "test")]
            names = {(name or "").lower() for name in column_of(found, "split")}
            rows = of_splits(found, [name for name in spellings if name in names][:1])
        labelled = clips_where(rows, "path", lambda path: not lacks_mask(path))
        return [Picture(clip, i, 0) for i, clip in enumerate(spread(labelled, MAX_PROBE_PICTURES))]


def choose_split(found: Sequence[Clip], split: str, source: str) -> tuple[str, Sequence[Clip]]:
    """The clips to train on, and of which split they are.

    Args:
        found: all clips of the source.
        split: its name in any usual spelling, or auto.
        source: for messages.

    Raises:
        ValueError: there is no such split, or none that is for training.
    """
    names = {name.lower() for name in column_of(found, "split") if name}
    if split != "auto":
        spellings = spellings_of(split)
    elif WORLD_SPLIT in names:
        spellings = (WORLD_SPLIT,)
    elif names:
        spellings = SPELLINGS["train"]
    else:
        return "all", found
    chosen = of_splits(found, spellings)
    if not chosen:
        raise ValueError(f"split {split}: {source} has {', '.join(sorted(names)) or 'no splits'}; choose by --split")
    return str(chosen[0].split), chosen


def read_classes(place: str, clips: Sequence[Clip]) -> tuple[str, ...]:
    """Class names by number, background first.

    Args:
        place: `looks`, a list that ships, a file with one per line, or a `label2idx.json`.
        clips: whose looks are meant.

    Raises:
        ValueError: none of these, or a list that does not begin with the background.
    """
    if place == "looks":
        try:
            return sounding_looks(clips)
        except ClipError as error:
            raise ValueError(f"classes looks: {error}") from error
    if place in SHIPPED:
        names = shipped_classes(place)
    elif place.endswith(".json"):
        names = read_label2idx(place)
    elif Path(place).is_file():
        names = tuple(line.strip() for line in Path(place).read_text(encoding="utf-8").splitlines() if line.strip())
    else:
        raise ValueError(f"classes {place}: no such file; give looks, avss, a list of classes or a label2idx.json")
    if not names or names[0] != "background":
        raise ValueError(f"classes {place}: must begin with background, which is class 0")
    return names


def _storages(clips: Sequence[Clip]) -> set[str]:
    return set(map(storage_of, column_of(clips, "path")))
