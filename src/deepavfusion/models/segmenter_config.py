"""Configuration of the segmenter: the encoder, which of its layers are read, and the decoder. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from deepavfusion.models.config import EarlyFusionConfig, ModelConfig, check_layers

SegmentationDecoderForm = Literal["attentive", "comparing", "release"]
NUM_MAPS = 4
"""Layers that a decoder reads unless told otherwise; of 12 they are 0, 3, 7 and 11, as in the release."""


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(ModelConfig):
    """The early-fusion encoder with a decoder that marks the pixels of what sounds."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    classes: tuple[str, ...] = ()
    """Class names in the order of their numbers, background first; empty gives one mask of whatever sounds."""
    decoder: SegmentationDecoderForm = "attentive"
    """attentive: image tokens read fusion and audio tokens by cross-attention; comparing: the same, and they are
    compared with the sound before, as a localizer's head does, over several frames if there are; release: the published
    decoder, which concatenates the mean audio token to the feature maps."""
    decoder_dim: int = 128
    """Width of our decoders; smallest width of the release's."""
    stride: int = 4
    """Our decoders have a logit for every N x N pixels, N a power of 2, which are upsampled bilinearly. Full
    resolution (1) costs many times what the encoder does."""
    layers: tuple[int, ...] = ()
    """Zero-based layers whose image tokens are read, ascending; empty is four layers, evenly spaced, including the
    last."""
    modalities: Literal["both", "image"] = "both"
    """image: without sound, as the image-only baseline."""
    positions_grid: tuple[int, int] | None = None
    """Rows and columns of patches in the encoder's training, where this image size is another: the position embedding
    is resampled over the same range. None: patch i has position i."""

    def __post_init__(self) -> None:
        for name in ("classes", "layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.positions_grid is not None:
            object.__setattr__(self, "positions_grid", tuple(self.positions_grid))
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError(
                f"classes {list(self.classes)} must be background and at least one more, each once, or none"
            )
        if len(self.classes) > 255:
            raise ValueError(f"classes: {len(self.classes)} are too many, masks hold numbers up to 255")
        if self.decoder not in get_args(SegmentationDecoderForm):
            raise ValueError(f"decoder {self.decoder!r} must be attentive, comparing or release")
        if self.modalities not in ("both", "image"):
            raise ValueError(f"modalities {self.modalities!r} must be both or image")
        if self.decoder == "comparing" and not self.hears:
            raise ValueError("decoder comparing compares with the sound, and modalities image has none: take attentive")
        if self.decoder != "comparing" and self.encoder.encode_frames != "all":
            raise ValueError(
                f"encode_frames {self.encoder.encode_frames}: only decoder comparing looks at other frames"
            )
        if self.decoder_dim < 32 or self.decoder_dim % 32:
            raise ValueError(f"decoder_dim {self.decoder_dim} must be a positive multiple of 32")
        stride, sides = self.stride, self.encoder.image_size
        if stride < 1 or stride & (stride - 1) or stride > self.encoder.patch_size or any(n % stride for n in sides):
            raise ValueError(
                f"stride {stride} must be a power of 2 that divides the image's {sides[0]} x {sides[1]} pixels, at "
                f"most the patch size {self.encoder.patch_size}"
            )
        check_layers(self.layers, self.encoder.depth)

    @property
    def layer_numbers(self) -> tuple[int, ...]:
        """The layers that are read, from the lowest to the highest."""
        if self.layers:
            return self.layers
        depth = self.encoder.depth
        return tuple(sorted({k * (depth - 1) // (NUM_MAPS - 1) for k in range(NUM_MAPS)}))

    @property
    def num_logits(self) -> int:
        """Numbers per pixel: 1, or one for each class."""
        return len(self.classes) or 1

    @property
    def hears(self) -> bool:
        """Whether sound is listened to."""
        return self.modalities == "both"
