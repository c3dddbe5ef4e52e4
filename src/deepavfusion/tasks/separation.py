"""Visually guided source separation: clips are mixed, and each is recovered by its image (section 5 of the method).

The published targets are corrected: a mask is the share of the mixture's magnitude that a source has, so that a clean
source is left as it is; it multiplies the complex spectrogram.

Shape legend: `B` batch, `N` clips per group, `G` groups, `S` samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepavfusion.data.clips import Clip, find_clips, quarantined
from deepavfusion.data.crops import WHOLE, Region
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import ClipLoader, StepSampler, training_loader
from deepavfusion.data.mixtures import Mixture, MixtureStream, mix_clips, mixing_weights
from deepavfusion.data.scenes.isolation import OthersHidden
from deepavfusion.data.separable import single_sources
from deepavfusion.data.splits import HELD_OUT_SPLITS, WORLD_TEST_SPLITS, held_out, not_of_splits
from deepavfusion.data.views import TrainingView
from deepavfusion.drawing.separation import separation_figure
from deepavfusion.evaluation.loop import OneProcess, predict_all
from deepavfusion.evaluation.separation.evaluator import SeparationEvaluator, mixture_scores
from deepavfusion.evaluation.separation.examples import separated_mixture
from deepavfusion.images import normalize
from deepavfusion.metrics.separation import separation_scores
from deepavfusion.models.separator import Separator
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.tasks.encoder_task import EncoderTask, kept_config, starting_config
from deepavfusion.tasks.senses import told
from deepavfusion.tasks.separation_config import SeparationConfig
from deepavfusion.tasks.separation_loss import separation_loss
from deepavfusion.training.intake import Need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBE_MIXTURES = 32
"""Held-out mixtures scored while training, so that watching stays cheaper than training."""
PROBE_BATCH = 4
"""Mixtures scored at a time."""
PROBE_SEED = 0
"""Of the held-out mixtures: the same for every run."""


class Separation(EncoderTask[Separator]):
    """Train a separator on clips that hold one sound each."""

    kind = "separation"
    needs: Mapping[Need, str] = dict.fromkeys(("picture", "sound"), "separation needs image and sound")

    def __init__(self, config: SeparationConfig) -> None:
        """Lists clips.

        Raises:
            ValueError: too few clips to mix, or no encoder where `from_` points.
        """
        self.config: SeparationConfig = config
        found = find_clips(config.data.source)
        to_train = not_of_splits(found, HELD_OUT_SPLITS | WORLD_TEST_SPLITS)
        self.clips: Sequence[Clip] = to_train
        self.regions: Sequence[Region] = ()
        unable: dict[str, str] = {}
        if config.mixing.pictures != "whole":
            able, unable = single_sources(to_train, config.mixing.pictures)
            self.clips, self.regions = [part.clip for part in able], [part.region or WHOLE for part in able]
        group = config.mixing.group
        if len(self.clips) < group:
            reason = next((f"; {name}: {cause}" for name, cause in unable.items()), "")
            raise ValueError(
                f"{config.data.source}: mixtures of {group} need as many clips to train on, there are "
                f"{len(self.clips)} of {len(found)}{reason}"
            )
        self.model_config = self._model_config()
        self.truth = OthersHidden() if config.mixing.pictures == "source" else None
        self.probes = self._probe_mixtures(held_out(found))
        left_out = {
            "held out": len(found) - len(to_train),
            "not of one source": len(unable),
            "quarantined": len(quarantined(config.data.source)),
        }
        notes = ", ".join(told(left_out))
        self.summary = (
            f"{len(self.clips)} clips of {config.data.source}{f' ({notes})' if notes else ''}, mixtures of "
            f"{' to '.join(map(str, dict.fromkeys(config.mixing.sources)))}, {config.decoding.target} masks, "
            f"{config.criterion} loss"
        )

    def _model_config(self) -> SeparatorConfig:
        config, shows = self.config, self.config.mixing.pictures
        if config.keep_heads:
            kept = kept_config(config.from_, SeparatorConfig, self.kind, ())
            return replace(kept, encoder=starting_config(config, kept=kept.encoder), shows=shows)
        return SeparatorConfig.from_parts(starting_config(config), config.decoding, shows)

    def build_model(self) -> Separator:
        """The separator with its own initialisation."""
        return self.set_up(Separator(self.model_config))

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Random views of clips, in groups that may be mixed.

        Raises:
            ValueError: groups would be torn apart by the division of the batch over processes.
        """
        mixing = self.config.mixing
        share = sampler.micro_batch
        if share % mixing.group:
            raise ValueError(
                f"training.batch_size {sampler.batch_size} over {sampler.num_processes} processes x "
                f"{sampler.accumulation} accumulations is {share} clips, which groups of {mixing.group} do not fill"
            )
        view = TrainingView.from_config(self.config.data, self.model_config.encoder)
        seed = self.config.training.seed
        stream = MixtureStream(self.clips, view, seed, mixing.group, mixing.partners, self.truth, self.regions)
        return training_loader(stream, sampler, num_workers, device)

    @property
    def samples_together(self) -> int:
        """Groups are mixed."""
        return self.config.mixing.group

    def counts(self, batch: Batch) -> dict[str, int]:
        """Clips with a picture to ask by and a sound to find."""
        return {"separation": int((batch.image_present & batch.audio_present).sum())}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Pictures, mixtures and what they are made of; drawn from the sample numbers alone."""
        mixing, device = self.config.mixing, batch.image.device
        weights = torch.from_numpy(
            mixing_weights(
                self.config.training.seed,
                batch.sample_numbers,
                mixing.group,
                mixing.sources,
                mixing.silent,
                mixing.single,
            )
        ).to(device, non_blocking=True)
        groups = batch.waveform.unflatten(0, (-1, mixing.group))  # (G, N, S)
        members = groups.repeat_interleave(mixing.group, dim=0) * weights[..., None]  # (B, N, S)
        place = torch.tensor([number % mixing.group for number in batch.sample_numbers])
        # Each sample's own sound first, then the others of its group in turn.
        order = (place[:, None] + torch.arange(mixing.group)) % mixing.group
        order = order.to(device, non_blocking=True)
        members = members.gather(1, order[..., None].expand_as(members))
        image = normalize(batch.image)
        if batch.truth is not None:
            shown = (batch.truth == 0).view(len(batch), *(1 for _ in image.shape[1:-2]), *image.shape[-2:])
            image = image * shown  # the rest painted in ImageNet's mean colour, of all frames the same part
        return {
            "image": image,
            "mixture": members.sum(dim=1),
            "source": members[:, 0],
            "others": members[:, 1:],
            "present": batch.image_present & batch.audio_present,
        }

    def loss_terms(self, model: Separator, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The mean loss over clips with picture and sound."""
        out = model(inputs["image"], inputs["mixture"])
        losses = separation_loss(
            self.config.criterion,
            self.config.decoding.target,
            out,
            inputs["source"],
            inputs["others"],
            inputs["mixture"],
        )
        present = inputs["present"]
        return {"separation": torch.where(present, losses, 0.0).sum() / present.sum().clamp_min(1)}

    def probe(self, model: Separator, device: torch.device) -> dict[str, float]:
        """Scores of at most `PROBE_MIXTURES` mixtures of held-out clips; empty if there are too few."""
        if not self.probes:
            return {}
        evaluator = SeparationEvaluator(model, self.probes, clean=False, full=False)
        found = predict_all(evaluator, OneProcess(device), PROBE_BATCH, self.config.data.num_workers)
        if not found.ids or found.values["reference_silent"].all():
            return {}
        scores = separation_scores(mixture_scores({k: torch.from_numpy(v) for k, v in found.values.items()}))
        return {
            "sdr": scores.estimate.sdr,
            "sdr_improvement": scores.improvement.sdr,
            "si_sdr_improvement": scores.improvement.si_sdr,
            "num_mixtures": scores.num_scored,
        }

    def pictures(self, model: Separator, device: torch.device) -> dict[str, Figure]:
        """Spectrograms of the first held-out mixture that can be read."""
        if not self.probes:
            return {}
        evaluator = SeparationEvaluator(model, self.probes[:1], clean=False, full=False)
        example = separated_mixture(evaluator, 0, device)
        if not np.abs(example.mixture).max():
            return {}
        return {"separation": separation_figure(example, title=example.id)}

    def _probe_mixtures(self, held_out: Sequence[Clip]) -> tuple[Mixture, ...]:
        parts, _ = single_sources(held_out, self.config.mixing.pictures)
        if len(parts) <= self.config.mixing.sources[0]:
            return ()
        return mix_clips(parts, self.config.mixing.sources[0], min(PROBE_MIXTURES, len(parts)), "auto", PROBE_SEED)
