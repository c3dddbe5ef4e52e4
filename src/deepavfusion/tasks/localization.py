"""Visual sound localization on a pre-trained encoder (section 5b of the method).

`self_supervised` uses no boxes. Each image is encoded with its own sound and with a mismatched one: silence, or another
clip's sound. Binary cross-entropy pulls the pooled map up for the first and down for the second. That teaches whether
something sounds, but not where: in an encoder in which every patch has seen the whole image, any patch could hold the
answer. Collages ask where: four images in one, with the sound of one of them, and cross-entropy over the pooled
quarters.

`supervised` trains every cell of the map, by binary cross-entropy, to predict the share of it that sounds. `synchrony`
does the same with what moves when something sounds (`data.synchrony`) in place of annotations, and leaves undecided
pixels out.

Shape legend: `B` batch, `K` maps (classes, or one), `R C` rows and columns of the maps, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.audio import LOG_FLOOR, log_mel
from deepavfusion.data.clips import Clip, clips_where, column_of, find_clips, quarantined
from deepavfusion.data.dataset import Batch, ClipStream
from deepavfusion.data.loading import ClipLoader, StepSampler, training_loader
from deepavfusion.data.scenes.sounding_masks import SoundingClasses, SoundingMasks
from deepavfusion.data.sets.listing import split_labels
from deepavfusion.data.sounding_truth import BoxMasks, read_box_annotations, read_excluded, without_excluded
from deepavfusion.data.splits import HELD_OUT_SPLITS, WORLD_TEST_SPLITS, not_of_splits, of_splits
from deepavfusion.data.synchrony import UNDECIDED, SynchronyMasks
from deepavfusion.data.truth import Truth
from deepavfusion.data.views import TrainingView
from deepavfusion.evaluation.localization.watch import probe_localization, training_pictures
from deepavfusion.images import normalize
from deepavfusion.models.localizer import Localizer, pool_scores
from deepavfusion.models.localizer_config import LocalizerConfig
from deepavfusion.tasks.class_balance import multi_hot
from deepavfusion.tasks.classification import read_classes
from deepavfusion.tasks.encoder_task import EncoderTask, kept_config, starting_config
from deepavfusion.tasks.localization_config import PER_PATCH, LocalizationConfig
from deepavfusion.tasks.senses import told
from deepavfusion.tasks.sound_pairs import NUM_CELLS, audible, cells, collages, draw_partners, strangers
from deepavfusion.training.intake import Need

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Localization(EncoderTask[Localizer]):
    """Train a localizer on clips."""

    kind = "localization"
    needs: Mapping[Need, str] = dict.fromkeys(("picture", "sound"), "localization needs image and sound")

    def __init__(self, config: LocalizationConfig) -> None:
        """Lists clips and classes.

        Raises:
            ValueError: no clips to train on, boxes or classes that do not fit, or no encoder where `from_` points.
        """
        self.config: LocalizationConfig = config
        source = config.data.source
        found = find_clips(source)
        held_out = of_splits(found, HELD_OUT_SPLITS | WORLD_TEST_SPLITS)
        if config.splits:
            chosen = clips_where(found, "split", config.splits.__contains__)
            held_out = clips_where(held_out, "split", lambda split: split not in config.splits)
        else:
            chosen = not_of_splits(found, HELD_OUT_SPLITS | WORLD_TEST_SPLITS)
        allowed = chosen if config.exclude is None else without_excluded(chosen, read_excluded(config.exclude))
        classes = _classes(config.classes)
        self.model_config = self._model_config(classes)
        usable, self._truth = allowed, None
        if config.recipe in PER_PATCH:
            usable, self._truth = self._with_truth(allowed, classes)
        elif classes:
            usable = clips_where(allowed, "label", lambda label: bool(split_labels(label)))
            names = {name for label in set(column_of(usable, "label")) for name in split_labels(label)} - set(classes)
            if names:
                raise ValueError(f"classes {config.classes}: does not name the labels {', '.join(sorted(names)[:5])}")
        self.clips: Sequence[Clip] = usable
        left_out = {
            "held out": len(held_out),
            "of other splits": len(found) - len(chosen) - len(held_out),
            f"excluded by {config.exclude}": len(chosen) - len(allowed),
            "without boxes" if config.boxes else "without label": len(allowed) - len(usable),
            "quarantined": len(quarantined(source)),
        }
        if not usable:
            reasons = "".join(f", {reason}" for reason in told(left_out))
            raise ValueError(f"{source}: none of {len(found)} clips is left to train on{reasons}")
        maps = ", ".join([f"{len(classes)} classes" if classes else "one map", *told(left_out)])
        self.summary = f"{len(usable)} clips of {source} ({maps}), recipe {config.recipe}"
        self._held_out = held_out
        self._check_collages()

    def build_model(self) -> Localizer:
        """The localizer, from torch's global generator."""
        return self.set_up(Localizer(self.model_config), keep_unused=True)

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Random views of the clips, with masks for the supervised recipe."""
        view = TrainingView.from_config(self.config.data, self.model_config.encoder)
        stream = ClipStream(self.clips, view, self.config.training.seed, truth=self._truth)
        return training_loader(stream, sampler, num_workers, device)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Samples of every term; terms with weight 0 are none."""
        settings = self.config.contrast
        seen, heard = batch.image_present, audible(batch, settings.quiet_db)
        if self.config.recipe in PER_PATCH:
            counts = {"patch": int(seen.sum())}
        else:
            counts = {"match": int((seen & heard).sum())}
        if settings.mismatch_weight:
            counts["mismatch"] = int(seen[: self._num_mismatched(len(batch))].sum())
        if settings.collage_weight:
            others = (strangers(batch) & seen[None]).any(dim=1)
            counts["collage"] = int((seen & heard & others).sum())
        return counts

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Pictures and sounds of all pairs one after the other, `(V B, ...)` for `V` kinds of pairs, and targets."""
        settings, encoder, device = self.config.contrast, self.model_config.encoder, batch.image.device
        image, sound = normalize(batch.image), log_mel(batch.waveform, encoder.audio_size[0])
        seen, heard = batch.image_present, audible(batch, settings.quiet_db)
        others = strangers(batch).to(device, non_blocking=True)
        pairs = [(image, sound, seen, batch.audio_present)]
        inputs: dict[str, Any] = {"seen": seen, "matched": seen & heard, "targets": self._targets(batch)}
        if self.config.recipe == "synchrony":
            assert batch.truth is not None
            inputs["decided"] = self._patch_shares(batch.truth.ne(UNDECIDED))
            inputs["targets"] = inputs["targets"] / inputs["decided"].clamp_min(1e-6)
        if settings.mismatch_weight:
            count = self._num_mismatched(len(batch))
            foreign = (others & heard[None])[:count]
            partner = draw_partners(foreign)[:, 0]
            draws = torch.rand(count).to(device, non_blocking=True)
            silent = (draws < settings.silence_share) | ~foreign.any(dim=1)
            silence = torch.log10(torch.tensor(LOG_FLOOR)).item()
            wrong = torch.where(silent[:, None, None, None], silence, sound[partner])
            pairs.append((image[:count], wrong, seen[:count], torch.ones_like(seen[:count])))
        if settings.collage_weight:
            shown = others & seen[None]
            members = torch.cat([torch.arange(len(batch), device=device)[:, None], draw_partners(shown, 3)], dim=1)
            places = torch.rand(len(batch), NUM_CELLS).argsort(dim=1).to(device, non_blocking=True)
            inputs["cell"] = (places == 0).long().argmax(dim=1)  # where the picture whose sound is heard went
            inputs["in_collage"] = seen & heard & shown.any(dim=1)
            pairs.append((collages(image, members.gather(1, places)), sound, seen, batch.audio_present))
        names = ("image", "audio", "image_present", "audio_present")
        return inputs | {name: torch.cat(parts) for name, parts in zip(names, zip(*pairs, strict=True), strict=True)}

    def _targets(self, batch: Batch) -> Tensor:
        """What the maps of the own pairs should be: shares `(B, K, R, C)` of truth, or flags `(B, K)` of labels."""
        if self._truth is not None:
            assert batch.truth is not None
            classes = self.model_config.classes
            masks = torch.stack([batch.truth == n for n in range(1, 1 + max(1, len(classes)))], dim=1)
            return self._patch_shares(masks)
        device, classes = batch.image.device, self.model_config.classes
        if not classes:
            return torch.ones(len(batch), 1, device=device)
        return multi_hot([split_labels(label) for label in batch.labels], classes).to(device, non_blocking=True)

    def loss_terms(self, model: Localizer, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Weighted mean losses: `match` or `patch` for own pairs, `mismatch`, `collage`."""
        out = model(*(inputs[name] for name in ("image", "audio", "image_present", "audio_present")))
        batch, settings, targets = len(inputs["seen"]), self.config.contrast, inputs["targets"]
        sizes = [batch]
        sizes += [self._num_mismatched(batch)] if settings.mismatch_weight else []
        sizes += [batch] if settings.collage_weight else []
        maps, pooled = out.maps.split(sizes), out.pooled.split(sizes)
        per_patch = self.config.recipe in PER_PATCH
        own = _cross_entropy(maps[0] if per_patch else pooled[0], targets, inputs.get("decided"))
        terms = {"patch": _mean(own, inputs["seen"])} if per_patch else {"match": _mean(own, inputs["matched"])}
        place = 0
        if settings.mismatch_weight:
            place += 1
            wrong = maps[place] if per_patch else pooled[place]
            losses = _cross_entropy(wrong, torch.zeros_like(wrong))
            terms["mismatch"] = settings.mismatch_weight * _mean(losses, inputs["seen"][: len(losses)])
        if settings.collage_weight:
            quarters = pool_scores(cells(maps[place + 1]), self.model_config)  # (B, K, 4)
            weights = targets[..., None] / targets.sum(dim=1).clamp_min(1)[:, None, None]
            losses = F.cross_entropy((weights * quarters).sum(dim=1), inputs["cell"], reduction="none")
            terms["collage"] = settings.collage_weight * _mean(losses, inputs["in_collage"])
        return terms

    def pictures(self, model: Localizer, device: torch.device) -> dict[str, Figure]:
        """Maps of a few fixed clips with their own sound and with silence."""
        return training_pictures(model, self._held_out or self.clips, device)

    def probe(self, model: Localizer, device: torch.device) -> dict[str, float]:
        """Scores on held-out clips of the source that have annotations beside them; empty without any."""
        return probe_localization(model, self._held_out, device, self.config.data.num_workers)

    def _model_config(self, classes: Sequence[str]) -> LocalizerConfig:
        config, drop_path = self.config, self.config.drop_path
        if config.keep_heads:
            kept = kept_config(config.from_, LocalizerConfig, self.kind, classes)
            encoder = starting_config(config, config.encode_frames, kept.encoder)
            return replace(kept, encoder=replace(encoder, drop_path=drop_path))
        encoder = replace(starting_config(config, config.encode_frames), drop_path=drop_path)
        return LocalizerConfig(encoder=encoder, classes=tuple(classes), **asdict(self.config.head))

    def _with_truth(self, clips: Sequence[Clip], classes: Sequence[str]) -> tuple[Sequence[Clip], Truth]:
        """The clips that can be trained on with truth, and where it comes from."""
        config = self.config
        if config.recipe == "synchrony":
            stored = next((clip for clip in clips if clip.storage not in ("file", "row")), None)
            if stored is not None:
                raise ValueError(
                    f"data.source {config.data.source}: --recipe synchrony needs all frames of the clips' files, "
                    f"and {stored.id} is stored as {stored.storage}; give the folder of the clips or its manifest"
                )
            return clips, SynchronyMasks()
        if config.boxes is None:
            bare = next((clip for clip in clips if clip.storage in ("shard", "row")), None)
            if bare is not None:
                raise ValueError(
                    f"data.source {config.data.source}: {bare.storage}s hold no masks; give the clips' manifest"
                )
            return clips, SoundingClasses(classes) if classes else SoundingMasks()
        annotations = read_box_annotations(config.boxes, config.boxes_format, config.boxes_folder)
        return clips_where(clips, "id", annotations.__contains__), BoxMasks(annotations, classes)

    def _patch_shares(self, masks: Tensor) -> Tensor:
        """From bool pixels `(B, K, H, W)`, or `(B, H, W)` of one map, to shares of cells `(B, K, R, C)`."""
        masks = masks if masks.ndim == 4 else masks[:, None]
        return F.avg_pool2d(masks.float(), self.model_config.cell_size)

    def _num_mismatched(self, batch_size: int) -> int:
        """How many pictures of a batch, the first ones, are also shown with a sound that is not theirs."""
        return max(1, round(self.config.contrast.mismatch_share * batch_size))

    def _check_collages(self) -> None:
        if not self.config.contrast.collage_weight:
            return
        encoder = self.model_config.encoder
        if any(side % 2 for side in (*self.model_config.map_grid, *encoder.image_size)):
            raise ValueError(
                f"contrast.collage_weight {self.config.contrast.collage_weight}: collages need an even number of "
                f"cells in both directions, these maps have {list(self.model_config.map_grid)}; set it to 0"
            )
        if self.config.training.batch_size // self.config.training.accumulation < 2:
            raise ValueError("training.batch_size: collages need at least two clips in a batch")


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, the mean over all but the first dimension, weighted if there are weights: `(B,)`."""
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").flatten(1)
    if weights is None:
        return losses.mean(dim=1)
    weights = weights.flatten(1)
    return (losses * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp_min(1)


def _classes(place: str | None) -> tuple[str, ...]:
    if place is None:
        return ()
    return read_classes(place)
