"""Pre-training of the early-fusion encoder: masked reconstruction (section 4 of the method), alignment of moments.

Shapes: `B` batch, `N` patches, `M` hidden patches, `H W` pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepavfusion.data.clips import Clip, clips_where, column_of, find_clips, quarantined
from deepavfusion.data.dataset import Batch, ClipSet, ClipStream, collate
from deepavfusion.data.loading import ClipLoader, StepSampler, evaluation_loader, training_loader
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.splits import held_out, spread, trained_on
from deepavfusion.data.views import CentreView, TrainingView
from deepavfusion.drawing.run import reconstruction_figure
from deepavfusion.images import denormalize
from deepavfusion.metrics.nearest_neighbour import leave_one_out_top1
from deepavfusion.models import AudioVisualMAE
from deepavfusion.models.frames import reference_picture
from deepavfusion.models.other_sense import other_sense_worth
from deepavfusion.models.patch_embed import patchify, unpatchify
from deepavfusion.storage.starting_point import load_streams
from deepavfusion.storage.weights import load_audiomae, load_mae
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.tasks.senses import seen_and_heard, told
from deepavfusion.training.intake import Need
from deepavfusion.training.processes import Processes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PROBE_CLIPS = 2000
"""Clips of the nearest-neighbour probe, so that watching stays cheaper than training."""
PROBE_BATCH = 32
"""Clips the probe encodes at a time."""
MAX_WORTH_CLIPS = 256
"""Clips that say what the other sense is worth."""
ALIGNED = ("image", "audio", "pair")
"""Terms of the alignment."""
NUM_PICTURES = 4
"""Clips in the reconstruction figure."""


class MaskedPretraining:
    """Reconstruct hidden patches of pictures and sound; find a clip again at another moment."""

    kind = "pretraining"
    needs: Mapping[Need, str] = dict.fromkeys(("picture", "sound"), "pre-training needs image and sound")

    def __init__(self, config: PretrainConfig) -> None:
        """Lists the clips. Raises ValueError if there are none to train on."""
        self.config = config
        found = find_clips(config.data.source)
        self.clips: Sequence[Clip] = trained_on(found)
        self._probe_clips = probe_clips(found)
        self._worth_clips = spread(held_out(found) or found, MAX_WORTH_CLIPS)
        left_out = {"held out": len(found) - len(self.clips), "quarantined": len(quarantined(config.data.source))}
        notes = ", ".join(told(left_out))
        self.summary = f"{len(self.clips)} clips of {config.data.source}" + (f" ({notes})" if notes else "")
        if not self.clips:
            raise ValueError(
                f"{config.data.source}: all {len(found)} clips belong to a held-out split "
                f"({', '.join(sorted(set(map(str, column_of(found, 'split')))))}); nothing is left to train on"
            )

    def build_model(self) -> AudioVisualMAE:
        """The autoencoder, from torch's global generator."""
        model = AudioVisualMAE(self.config.autoencoder_config)
        model.encoder.gradient_checkpointing = self.config.training.gradient_checkpointing
        return model

    def load_published(self, model: AudioVisualMAE, say: Callable[[str], None]) -> None:
        """An encoder's weights, or those of MAE and AudioMAE into the two ViTs."""
        init = self.config.init
        if init.encoder is not None:
            say(load_streams(model.encoder, init.encoder))
        if init.image is not None:
            say(f"image ViT from {load_mae(model.encoder, init.image)}")
        if init.audio is not None:
            say(f"audio ViT from {load_audiomae(model.encoder, init.audio, init.transpose_audio_patches)}")

    def measure_tokens(self, model: AudioVisualMAE, processes: Processes) -> None:
        """Decoders take nothing from the samples."""

    def finished(self, model: AudioVisualMAE) -> AudioVisualMAE:
        """As it is."""
        return model

    def ramped(self, model: AudioVisualMAE) -> set[str]:
        """All parameters of a ViT that starts from published weights."""
        init = self.config.init
        streams = [name for name, source in (("image", init.image), ("audio", init.audio)) if source is not None]
        prefixes = tuple(f"encoder.{stream}." for stream in streams)
        return {name for name, _ in model.named_parameters() if name.startswith(prefixes)} if prefixes else set()

    def layer_ids(self, model: AudioVisualMAE) -> Mapping[str, int]:
        """Layers as the model counts them; decoders belong to the last."""
        return model.layer_ids()

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Random views with masking noise."""
        model = self.config.model
        stream = ClipStream(
            self.clips,
            TrainingView.from_config(self.config.data, model),
            self.config.training.seed,
            (model.num_image_patches, model.num_audio_patches),
            two_moments=bool(self.config.alignment.weight),
        )
        return training_loader(stream, sampler, num_workers, device)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Clips with a picture, clips with sound, clips with both at both moments."""
        reconstructed = {"image": int(batch.image_present.sum()), "audio": int(batch.audio_present.sum())}
        counts = reconstructed if self.config.autoencoder.weight else {}
        if batch.second is None:
            return counts
        both = batch.image_present & batch.audio_present & batch.second.image_present & batch.second.audio_present
        return counts | dict.fromkeys((f"aligned_{name}" for name in ALIGNED), int(both.sum()))

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Normalised pictures and log-mel spectrograms, made on the device."""
        second = {} if batch.second is None else {"second": self.inputs(batch.second)}
        noise = {"image_noise": batch.image_noise, "audio_noise": batch.audio_noise}
        return {**seen_and_heard(batch, self.config.model.audio_size[0]), **noise, **second}

    def loss_terms(self, model: AudioVisualMAE, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Mean squared errors on hidden patches of either modality, and the alignment's InfoNCE, with their weights."""
        out, weight = model(**inputs), self.config.autoencoder.weight
        terms = {"image": weight * out.loss_image, "audio": weight * out.loss_audio} if weight else {}
        return terms | {f"aligned_{name}": self.config.alignment.weight * term for name, term in out.alignment.items()}

    def probe(self, model: AudioVisualMAE, device: torch.device) -> dict[str, float]:
        """Whether the reconstruction uses the other modality, and the nearest-neighbour accuracy of every stream."""
        worth = self.worth(model, device) if self.config.autoencoder.weight else {}
        return {**worth, **self.nearest_neighbour(model, device)}

    def worth(self, model: AudioVisualMAE, device: torch.device) -> dict[str, float]:
        """Rise of the loss on hidden patches when the other sense is a foreign clip's, the same clips and masks always.

        Clips that lack a sense are left out; empty if no two are left.
        """
        clips, encoder = ClipSet(self._worth_clips, CentreView.from_config(self.config.model)), self.config.model
        rises: dict[str, list[Tensor]] = {"image": [], "audio": []}
        counts: list[int] = []
        with evaluation_loader(clips, PROBE_BATCH, self.config.data.num_workers, device) as loader:
            for number, batch in enumerate(loader):
                complete = (batch.image_present & batch.audio_present).nonzero()[:, 0].to(device)
                if len(complete) < 2:
                    continue
                rng, inputs = (
                    generator(self.config.training.seed, number, Purpose.WORTH_MASKS),
                    self.inputs(batch.to(device)),
                )
                noise = [
                    torch.from_numpy(rng.random((len(batch.ids), patches), dtype=np.float32)).to(device)
                    for patches in (encoder.num_image_patches, encoder.num_audio_patches)
                ]
                given = [x.index_select(0, complete) for x in (inputs["image"], inputs["audio"], *noise)]
                counts.append(len(complete))
                for name, rise in other_sense_worth(model, *given).items():
                    rises[name].append(rise * len(complete))
        if not counts:
            return {}
        return {f"worth_{name}": float(torch.stack(values).sum()) / sum(counts) for name, values in rises.items()}

    def nearest_neighbour(self, model: AudioVisualMAE, device: torch.device) -> dict[str, float]:
        """Leave-one-out nearest-neighbour accuracy of every stream on labelled clips, unmasked.

        Tokens are averaged per stream; `all` sums the three similarities. Clips without picture or sound are left
        out; `num_clips` says how many were scored. Empty without labels, or without two clips of one class.
        """
        if not self._probe_clips:
            return {}
        names = sorted({str(clip.label) for clip in self._probe_clips})
        clips = ClipSet(self._probe_clips, CentreView.from_config(self.config.model))
        features: dict[str, list[Tensor]] = {"fusion": [], "audio": [], "image": []}
        labels: list[int] = []
        with evaluation_loader(clips, PROBE_BATCH, self.config.data.num_workers, device) as loader:
            for batch in loader:
                complete = batch.image_present & batch.audio_present
                labels += [names.index(str(label)) for label, c in zip(batch.labels, complete, strict=True) if c]
                inputs = self.inputs(batch.to(device))
                out = model.encoder(inputs["image"], inputs["audio"])
                for name, rows in features.items():
                    rows.append(getattr(out, name).mean(dim=1)[complete.to(device)])
        if len(labels) < 2:
            return {}
        streams, numbers = {name: torch.cat(rows) for name, rows in features.items()}, torch.tensor(labels).to(device)
        scores = {f"top1_{name}": leave_one_out_top1([x], numbers) for name, x in streams.items()}
        return {**scores, "top1_all": leave_one_out_top1(list(streams.values()), numbers), "num_clips": len(labels)}

    def pictures(self, model: AudioVisualMAE, device: torch.device) -> dict[str, Figure]:
        """Masked input, reconstruction and target of a few clips, the same clips and masks every time.

        Of several frames the reference is shown, the middle one. None where nothing is reconstructed.
        """
        if not self.config.autoencoder.weight:
            return {}
        batch = self._picture_batch().to(device)
        inputs = self.inputs(batch)
        out = model(**inputs)
        encoder, decoding = self.config.model, self.config.autoencoder
        panels = {}
        for name, pred, mask, grid, floor in (
            ("image", out.pred_image, out.image_mask, encoder.image_grid, decoding.image_variance_floor),
            ("audio", out.pred_audio, out.audio_mask, encoder.audio_grid, decoding.audio_variance_floor),
        ):
            x = inputs[name]
            masked = paste(x, torch.full_like(pred, float("nan")), mask, encoder.patch_size, grid)
            restored = pred
            if decoding.norm_pix_loss:
                restored = denormalize_patches(pred, x, mask, encoder.patch_size, floor)
            panels[name] = [masked, paste(x, restored, mask, encoder.patch_size, grid), x]
        panels["image"] = [reference_picture(x) for x in panels["image"]]
        image, audio = (
            [torch.where(present.view(-1, 1, 1, 1), x, float("nan")) for x in panels[name]]
            for name, present in (("image", batch.image_present), ("audio", batch.audio_present))
        )
        figure = reconstruction_figure(
            batch.ids,
            [denormalize(x).permute(0, 2, 3, 1).cpu().numpy() for x in image],
            [x[:, 0].cpu().numpy() for x in audio],
        )
        return {"reconstruction": figure}

    def _picture_batch(self) -> Batch:
        """Clips spread over the list, each with its own fixed masking noise."""
        places = np.unique(np.linspace(0, len(self.clips) - 1, NUM_PICTURES).round().astype(int))
        clips = ClipSet([self.clips[i] for i in places], CentreView.from_config(self.config.model))
        samples = []
        for number in range(len(clips)):
            rng = generator(self.config.training.seed, number, Purpose.PICTURE_MASKS)
            image_noise, audio_noise = (
                rng.random(count, dtype=np.float32)
                for count in (self.config.model.num_image_patches, self.config.model.num_audio_patches)
            )
            samples.append(replace(clips[number], image_noise=image_noise, audio_noise=audio_noise))
        return collate(samples)


def probe_clips(clips: Sequence[Clip]) -> Sequence[Clip]:
    """Labelled clips to probe on: the held-out ones if there are any, else those trained on; evenly spread, at most
    `MAX_PROBE_CLIPS`. Empty if no class has two."""
    labelled = clips_where(clips, "label", lambda label: label is not None)
    chosen = spread(held_out(labelled) or labelled, MAX_PROBE_CLIPS)
    return chosen if max(Counter(clip.label for clip in chosen).values(), default=0) > 1 else []


def denormalize_patches(pred: Tensor, x: Tensor, mask: Tensor, patch_size: int, variance_floor: float = 0.0) -> Tensor:
    """Predictions in units of normalised patches back to the units of `x`, by the hidden patches' own statistics.

    Args:
        pred: `(B, M, P)` for the hidden patches in ascending order.
        x: `(B, C, H, W)` or `(B, T, C, H, W)` what the patches were cut from.
        mask: `(B, N)`, 1 where hidden.
        patch_size: side of a patch.
        variance_floor: that the targets were normalised with.

    Returns:
        `(B, M, P)`.
    """
    target = patchify(x, patch_size)[mask.bool()].view(pred.shape)
    mean, var = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
    return pred * (var + 1e-6 + variance_floor).sqrt() + mean


def paste(x: Tensor, patches: Tensor, mask: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """`x` `(B, C, H, W)` or `(B, T, C, H, W)`, its hidden patches replaced by `patches` `(B, M, P)`, ascending."""
    pieces = patchify(x, patch_size).clone()
    pieces[mask.bool()] = patches.flatten(0, 1).to(pieces.dtype)
    return unpatchify(pieces, patch_size, grid)
