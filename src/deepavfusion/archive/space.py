"""The space in which recordings are compared: unit vectors of their windows, from a trained model.

With a joint space (`models.alignment`), a window has a vector of its image and one of its sound, each encoded alone,
and their unit mean (`both`); all can be compared with each other. Without one, a window has the mean token of its image
encoded alone, of its sound encoded alone, and of the fusion tokens of both encoded together (`both`); each kind is
compared with its like.

Shape legend: `B` windows of a batch, `T` windows of a recording, `E` numbers of a vector.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from deepavfusion.inference.inputs import Recording
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.steps import Progress
from deepavfusion.inference.timeline import Compute, WindowBatch, window_batches, windows_of
from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.alignment import Alignment
from deepavfusion.models.no_numbers import check_numbers
from deepavfusion.storage.bundle import Bundle
from deepavfusion.storage.model_configs import read_model_config
from deepavfusion.storage.starting_point import WEIGHT_SUFFIXES, model_folder
from deepavfusion.storage.trained_models import open_models
from deepavfusion.training.processes import autocast_dtype, resolve_device


@dataclass(frozen=True)
class WindowVectors:
    """Vectors of the windows of a recording."""

    start_seconds: NDArray[np.float64]
    """`(T,)`."""
    end_seconds: NDArray[np.float64]
    """`(T,)`."""
    streams: dict[str, NDArray[np.float32]]
    """By stream `(T, E)`, unit vectors; zeros where a window lacks it."""
    present: dict[str, NDArray[np.bool_]]
    """By stream `(T,)`, whether a window has it."""


class VectorSpace:
    """A model, and what it makes of windows."""

    def __init__(self, encoder: EarlyFusionEncoder, alignment: Alignment | None, compute: Compute) -> None:
        self.encoder, self.alignment, self.compute = encoder, alignment, compute

    @classmethod
    def open(
        cls,
        place: str,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        batch: int = 16,
    ) -> VectorSpace:
        """The space of the model at a place; the joint one if it has one.

        Raises:
            ValueError: there is no such model; names the place and the fix.
        """
        on = torch.device(resolve_device(device))
        compute = Compute(on, autocast_dtype(precision, on.type), batch)
        models = open_models(place)
        if not isinstance(models, Bundle) and Path(models.place).suffix not in WEIGHT_SUFFIXES:
            folder = model_folder(models.place)
            _, saved = read_model_config(folder / "config.json")
            if isinstance(saved, MaskedAutoencoderConfig) and saved.alignment.weight:
                whole = AudioVisualMAE.from_pretrained(folder).to(on).eval()
                assert whole.alignment is not None
                return cls(whole.encoder, whole.alignment, compute)
        return cls(models.load_encoder().to(on).eval(), None, compute)

    @property
    def is_joint(self) -> bool:
        """Whether images and sounds can be compared with each other."""
        return self.alignment is not None

    @property
    def streams(self) -> tuple[str, ...]:
        """The vectors that a window may have."""
        return ("image", "audio", "both") if self.is_joint or self.encoder.config.fused else ("image", "audio")

    @property
    def dim(self) -> int:
        """`E`."""
        if self.alignment is None:
            return self.encoder.config.embed_dim
        return next(iter(self.alignment.alone.values())).out.out_features  # type: ignore[union-attr,return-value]

    def digest(self) -> str:
        """A hash of all weights that the vectors come from: BLAKE2b of 8 bytes, hexadecimal."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{self.encoder.config.num_frames} frames".encode())
        parts: list[nn.Module] = [self.encoder, *([] if self.alignment is None else [self.alignment.alone])]
        for number, part in enumerate(parts):
            for name, value in sorted(part.state_dict().items()):
                digest.update(f"{number} {name}".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def windows(
        self, recording: Recording, hop_seconds: float | None = None, progress: Progress | None = None
    ) -> WindowVectors:
        """The vectors of a recording.

        Args:
            recording: opened.
            hop_seconds: from one window to the next at most; by default windows overlap by half.
            progress: is told seconds done and in all.

        Raises:
            MediaError: it cannot be read.
            NoNumbersError: the model's answer is not finite.
        """
        spaced = windows_of(recording, self.encoder.config, hop_seconds)
        batches = window_batches(recording, SharedFilm(recording), self.encoder.config, spaced, self.compute)
        length, found = recording.info.duration_seconds, []
        for batch in batches:
            found.append(self._vectors(batch))
            if progress is not None:
                progress(min(batch.end_seconds, length), length)
        return WindowVectors(
            spaced.start_seconds,
            spaced.start_seconds + spaced.length_seconds,
            {name: torch.cat([vectors[name] for vectors, _ in found]).cpu().numpy() for name in self.streams},
            {name: torch.cat([present[name] for _, present in found]).cpu().numpy() for name in self.streams},
        )

    def _vectors(self, batch: WindowBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By stream the vectors `(B, E)` and which are there `(B,)`."""
        seen, heard = batch.image_present, batch.audio_present
        has = {"image": seen, "audio": heard, "both": seen | heard if self.is_joint else seen & heard}
        vectors: dict[str, Tensor] = {}
        with torch.inference_mode(), self.compute.autocast():
            for name in self.streams:
                if name == "both" and self.is_joint:
                    vectors[name] = F.normalize(vectors["image"] + vectors["audio"], dim=1)
                elif has[name].any():
                    vectors[name] = self._stream(name, batch, has[name])
                else:
                    vectors[name] = torch.zeros(len(seen), self.dim, device=self.compute.device)
                check_numbers(vectors[name][has[name]])
                vectors[name] = vectors[name].where(has[name][:, None], 0)
        return vectors, {name: has[name] for name in self.streams}

    def _stream(self, name: str, batch: WindowBatch, present: Tensor) -> Tensor:
        if name == "both":
            out = self.encoder(batch.image, batch.audio, image_present=present, audio_present=present)
        elif name == "image":
            out = self.encoder(batch.image, None, image_present=present)
        else:
            out = self.encoder(None, batch.audio, audio_present=present)
        if self.alignment is not None:
            return self.alignment.embed(out).float()
        tokens: Tensor = out.fusion if name == "both" else getattr(out, name)
        return F.normalize(tokens.float().mean(dim=1), dim=1)
