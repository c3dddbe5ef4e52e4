"""Estimates of a separator for mixtures, and their scores beside those of the baselines.

Each source is separated by its own image. As baselines the same model also gets wrong images (of clips and classes that
are not in the mixture) and swapped ones (of the mixture's next source). The oracle mask is the target mask, made from
the true sources. Other models may be scored on the same mixtures.

Shape legend: `B` mixtures, `N` sources, `P` parts of a mixture (sources, wrong images, recording), `S` samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import soxr
import torch
from torch import Tensor

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import ClipLoader, evaluation_loader
from deepavfusion.data.mixture_set import MixtureSet, RatedView
from deepavfusion.data.mixtures import Mixture
from deepavfusion.evaluation.loop import Outcome
from deepavfusion.evaluation.separation import sound_of_pixels
from deepavfusion.images import normalize
from deepavfusion.inference.separation import separate_sound
from deepavfusion.inference.timeline import Compute
from deepavfusion.metrics.separation import MixtureScores, Ratios, score_systems
from deepavfusion.models.no_numbers import without_numbers
from deepavfusion.models.separator import Separator
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.stft import dominance_mask, istft, linear_to_mel, mel_to_linear, ratio_mask, stft

MODEL, WRONG, SWAPPED, ORACLE = "model", "wrong picture", "swapped pictures", "oracle mask"
RATIOS = ("sdr", "sir", "sar", "si_sdr")


@dataclass(frozen=True)
class Separated:
    """Sounds of a batch of mixtures."""

    mixture: Tensor
    """`(B, S)`."""
    references: Tensor
    """`(B, N, S)`."""
    estimates: dict[str, Tensor]
    """By system, `(B, N, S)`."""
    clean: Tensor | None
    """What the model makes of each reference alone, `(B, N, S)`."""
    failed: dict[int, str]
    """Mixtures that could not be read, by place, with the cause."""


class SeparationEvaluator:
    """What the evaluation loop asks, for a separator."""

    def __init__(
        self,
        model: Separator,
        mixtures: Sequence[Mixture],
        baselines: Mapping[str, Separator] | None = None,
        protocol: str = "standard",
        clean: bool = True,
        full: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            model: in evaluation mode, on its device.
            mixtures: what to separate.
            baselines: other models for the same mixtures, by name.
            protocol: standard or sound_of_pixels.
            clean: also separate every source alone.
            full: also score wrong and swapped pictures and the oracle mask.
            dtype: of the forward pass under autocast; None is plain float32.

        Raises:
            ValueError: a baseline that looks at other sizes than the model.
        """
        self.model, self.mixtures, self.baselines = model, mixtures, dict(baselines or {})
        self.protocol, self.clean, self.full, self.dtype = protocol, clean, full, dtype
        own = _sizes(model.config)
        for name, other in self.baselines.items():
            if _sizes(other.config) != own:
                raise ValueError(f"baselines {name}: takes inputs of {_sizes(other.config)}, the model at {own}")

    @property
    def ids(self) -> Sequence[str]:
        return [mixture.id for mixture in self.mixtures]

    @property
    def view(self) -> RatedView:
        """Window and picture that the protocol asks for."""
        config = self.model.config
        if self.protocol == "sound_of_pixels":
            rate, count = sound_of_pixels.SAMPLE_RATE, sound_of_pixels.NUM_SAMPLES
        else:
            rate, count = SAMPLE_RATE, config.num_samples
        return RatedView(
            config.encoder.image_size, count / rate, num_frames=config.encoder.num_frames, sample_rate=rate
        )

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> ClipLoader:
        """Batches of all parts of `batch_size` mixtures."""
        parts = MixtureSet([self.mixtures[i] for i in positions], self.view)
        return evaluation_loader(parts, batch_size * parts.num_parts, num_workers, device)

    def predict(self, batch: Batch, device: torch.device) -> Outcome:
        """Ratios in dB of every system as `RATIO/SYSTEM`, `(B, N)`, and what else the scores need."""
        separated = self.separate(batch, device)
        mixture, references = (t.cpu() for t in (separated.mixture, separated.references))
        values: dict[str, Tensor] = {}
        estimates = {system: sounds.cpu() for system, sounds in separated.estimates.items()}
        for system, scores in score_systems(references, estimates, mixture).items():
            values |= {f"{name}/{system}": getattr(scores.estimate, name) for name in RATIOS}
            if system == MODEL:
                values |= {f"{name}/mixture": getattr(scores.mixture, name) for name in RATIOS}
                values |= {
                    name: getattr(scores, name) for name in ("silent", "not_finite", "reference_silent", "singular")
                }
        if separated.clean is not None:
            values["attenuation"] = attenuation(references, separated.clean.cpu())
        silent = without_numbers(separated.estimates[MODEL]) - separated.failed.keys()
        return Outcome(values, separated.failed, silent)

    def separate(self, batch: Batch, device: torch.device) -> Separated:
        """The sounds that `predict` scores."""
        count = len(self.mixtures[0].parts)
        recorded = self.mixtures[0].recording is not None
        parts = 2 * count + recorded
        views = batch.to(device)
        image = views.image.unflatten(0, (-1, parts))[:, : 2 * count]  # (B, 2N, 3, H, W) or (B, 2N, T, 3, H, W)
        sound = views.waveform.unflatten(0, (-1, parts))
        references = sound[:, :count]
        if self.protocol == "sound_of_pixels":
            references = references / count
        mixture = sound[:, -1] if recorded else references.sum(dim=1)
        if recorded and self.protocol == "sound_of_pixels":
            mixture = mixture / count
        own, wrong = image[:, :count], image[:, count:]
        systems = {MODEL: self._run(self.model, own, mixture)}
        for name, other in self.baselines.items():
            systems[name] = self._run(other, own, mixture)
        if self.full:
            systems[WRONG] = self._run(self.model, wrong, mixture)
            systems[SWAPPED] = systems[MODEL].roll(-1, dims=1)  # what the next source's picture gave
            systems[ORACLE] = self._oracle(references, mixture)
        clean = None
        if self.clean:
            each = [self._run(self.model, own[:, n : n + 1], references[:, n]) for n in range(count)]
            clean = torch.cat(each, dim=1)
        return Separated(mixture, references, systems, clean, _failed(batch, parts, count))

    def _run(self, model: Separator, image: Tensor, mixture: Tensor) -> Tensor:
        """Estimates `(B, N, S)` for pictures `(B, N, 3, H, W)` or `(B, N, T, 3, H, W)` uint8 and mixtures `(B, S)`."""
        count = image.shape[1]
        if self.protocol == "sound_of_pixels":
            return torch.stack([self._reconstruct(model, *row) for row in zip(image, mixture, strict=True)])
        with torch.autocast(mixture.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            out = model(normalize(image.flatten(0, 1)), mixture.repeat_interleave(count, dim=0))
        return out.waveform().unflatten(0, (-1, count))

    def _reconstruct(self, model: Separator, image: Tensor, mixture: Tensor) -> Tensor:
        """The Sound-of-Pixels form of a model's estimates: it hears 16 kHz, the masks are made at 11,025 Hz."""
        rate = sound_of_pixels.SAMPLE_RATE
        heard = soxr.resample(mixture.cpu().numpy(), rate, SAMPLE_RATE)
        compute = Compute(mixture.device, self.dtype, len(image))
        estimates = separate_sound(model, image, torch.from_numpy(heard), compute)
        back = torch.from_numpy(soxr.resample(estimates.numpy().T, SAMPLE_RATE, rate).T.copy())
        missing = len(mixture) - back.shape[1]
        back = torch.nn.functional.pad(back, (0, max(0, missing)))[:, : len(mixture)]
        return sound_of_pixels.reconstruct(back.to(mixture.device), mixture)

    def _oracle(self, references: Tensor, mixture: Tensor) -> Tensor:
        if self.protocol == "sound_of_pixels":
            rows = zip(references, mixture, strict=True)
            return torch.stack([sound_of_pixels.reconstruct(sources, whole) for sources, whole in rows])
        return oracle(self.model.config, references, mixture)


def oracle(config: SeparatorConfig, references: Tensor, mixture: Tensor) -> Tensor:
    """Estimates by the masks a model aims at, made from the true sources.

    Args:
        config: the model's, which says what its masks aim at and where they live.
        references: `(B, N, S)`.
        mixture: `(B, S)`.

    Returns:
        `(B, N, S)`.
    """
    whole, sources = stft(mixture), stft(references)
    estimates = []
    for n in range(references.shape[1]):
        own, others = sources[:, n], torch.cat([sources[:, :n], sources[:, n + 1 :]], dim=1)
        mask = dominance_mask(own, others) if config.target == "dominance" else ratio_mask(own, whole)
        if config.decoder == "release":  # the mean over each band, weighted by what sounds there
            bands = config.encoder.audio_size[0]
            level = linear_to_mel(whole.abs(), bands).clamp_min(1e-8)
            mask = mel_to_linear((linear_to_mel(mask * whole.abs(), bands) / level).clamp(0, 1))
        estimates.append(istft(mask * whole, mixture.shape[1]))
    return torch.stack(estimates, dim=1)


def attenuation(references: Tensor, estimates: Tensor) -> Tensor:
    """How much of each source is lost, 10 log10(|s|^2 / |e|^2) in dB: `(..., S)` to `(...)`; NaN for silent ones."""
    own, left = (t.double().square().sum(dim=-1) for t in (references, estimates))
    lost = 10 * torch.log10(own / left.clamp_min(1e-10))
    return torch.where(own > 1e-5, lost, torch.nan)


def mixture_scores(values: Mapping[str, Tensor], system: str = MODEL) -> MixtureScores:
    """The metrics' own form of what `predict` gave for one system."""
    return MixtureScores(
        estimate=Ratios(**{name: values[f"{name}/{system}"] for name in RATIOS}),
        mixture=Ratios(**{name: values[f"{name}/mixture"] for name in RATIOS}),
        silent=values["silent"],
        not_finite=values["not_finite"],
        reference_silent=values["reference_silent"],
        singular=values["singular"],
    )


def _sizes(config: SeparatorConfig) -> tuple[object, ...]:
    """Picture and sound, and of several frames how many."""
    num_frames = config.encoder.num_frames
    return (config.encoder.image_size, config.num_samples, *((num_frames,) if num_frames > 1 else ()))


def _failed(batch: Batch, parts: int, count: int) -> dict[int, str]:
    """Mixtures that lack an image or a needed sound."""
    causes = {failure.clip_id: failure.cause for failure in batch.failures}
    failed: dict[int, str] = {}
    for row, name in enumerate(batch.ids):
        place, part = divmod(row, parts)
        needs_image, needs_sound = part < 2 * count, part < count or part == 2 * count
        lacking = (needs_image and not batch.image_present[row]) or (needs_sound and not batch.audio_present[row])
        if lacking:
            what = "no picture" if needs_image and not batch.image_present[row] else "no sound in its window"
            failed.setdefault(place, f"{name}: {causes.get(name, what)}")
    return failed
