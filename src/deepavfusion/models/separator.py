"""Visually guided separation: from a mixture and an image of one source to that source's sound.

The encoder gets the image and the mixture together; a decoder turns its audio tokens into a mask over the mixture's
spectrogram. The decoder also gets the image tokens, so that models with and without fusion differ only in the encoder.

Shape legend: `B` batch, `S` samples, `F` frequency bins, `T` frames of the STFT, `H W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepavfusion.audio import LOG_FLOOR, log_mel
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.models.release_separation_decoder import ReleaseSeparationDecoder
from deepavfusion.models.separation_decoder import SeparationDecoder
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.stft import istft, mel_to_linear, stft


@dataclass
class SeparatorOutput:
    """What the separator says of each mixture."""

    mask: Tensor
    """`(B, F, T)` float32 in [0, 1]."""
    mixture: Tensor
    """`(B, F, T)` complex spectrogram of the mixture."""
    num_samples: int
    """`S`."""

    @property
    def spectrum(self) -> Tensor:
        """`(B, F, T)` complex spectrogram of the source."""
        return self.mask * self.mixture

    def waveform(self) -> Tensor:
        """`(B, S)` the source's sound."""
        return istft(self.spectrum, self.num_samples)


DECODERS: dict[str, type[SeparationDecoder] | type[ReleaseSeparationDecoder]] = {
    "unet": SeparationDecoder,
    "release": ReleaseSeparationDecoder,
}


class Separator(EncoderModel):
    """The early-fusion encoder and a decoder of masks."""

    config_class = SeparatorConfig

    def __init__(self, config: SeparatorConfig) -> None:
        super().__init__(config)
        self.config = config
        self.decoder = DECODERS[config.decoder](config)

    def forward(self, image: Tensor, mixture: Tensor) -> SeparatorOutput:
        """Predict the mask of the source that each picture shows.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised.
            mixture: `(B, S)` mono at 16 kHz, `S = config.num_samples`.

        Raises:
            ValueError: inputs of another size than the configuration's.
        """
        if mixture.ndim != 2 or mixture.shape[1] != self.config.num_samples:
            raise ValueError(f"expected a mixture (B, {self.config.num_samples}), got {tuple(mixture.shape)}")
        spectrum = stft(mixture)  # (B, F, T)
        mel = log_mel(mixture, self.config.encoder.audio_size[0])
        parts = torch.view_as_real(spectrum[..., :-1]).square()
        power = torch.log10(parts[..., 0] + parts[..., 1] + LOG_FLOOR)
        logits = self.logits(image, mel, power[:, None])
        return SeparatorOutput(self._mask(logits.float()), spectrum, mixture.shape[1])

    def blank_answer(self) -> Tensor:
        """The mask of a silent mixture beside a blank picture."""
        mixture = torch.zeros(1, self.config.num_samples, device=self.encoder.fusion_tokens.device)
        answer: SeparatorOutput = self(self.blank_image(), mixture)
        return answer.mask

    def logits(self, image: Tensor, log_mel: Tensor, log_power: Tensor) -> Tensor:
        """Logits of the mask over the frames of the log-mel spectrogram.

        Args:
            image: as in `forward`.
            log_mel: of the mixture, `(B, 1, M, T)`.
            log_power: of the mixture on the bins of the STFT, `(B, 1, F, T)`.

        Returns:
            `(B, 1, F, T)`, or `(B, 1, M, T)` of the release's decoder.
        """
        if self.config.condition == "none":
            image = torch.zeros_like(image)  # ImageNet's mean colour: same network, nothing to see
        tokens = self.encoder(image, log_mel, return_layers=True)
        assert tokens.layers is not None
        layers = [tokens.layers[i] for i in self.decoder.layers]
        maps, pictures = [layer.audio for layer in layers], [layer.image for layer in layers]
        if self.config.decoder == "unet" and self.config.encoder.fused:
            pictures = [torch.cat([layer.image, layer.fusion], dim=1) for layer in layers]
        return self.decoder(maps, pictures, log_mel, log_power)

    def bounded(self, logits: Tensor) -> Tensor:
        """The mask over bins, `(B, F, T)` in [0, 1], over the frames of the log-mel spectrogram."""
        mask = torch.sigmoid(logits[:, 0])
        if self.config.decoder == "unet":
            return mask
        with torch.autocast(mask.device.type, enabled=False):
            return mel_to_linear(mask)

    def _mask(self, logits: Tensor) -> Tensor:
        """The mask over one frame more, the STFT's last, which is as the one before."""
        mask = self.bounded(logits)
        return torch.cat([mask, mask[..., -1:]], dim=-1)
