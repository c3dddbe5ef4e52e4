"""Audio-visual segmenter: the early-fusion encoder and a decoder that marks the pixels of what sounds.

Shape legend: `B` batch, `D` width, `h w` patches down and across, `C` logits per pixel, `H W` pixels, `M T` mel bands
and frames.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from deepavfusion.models.encoder import EncoderOutput
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.models.picture_size import set_picture_size
from deepavfusion.models.release_segmentation_decoder import ReleaseSegmentationDecoder
from deepavfusion.models.segmentation_decoder import SegmentationDecoder
from deepavfusion.models.segmenter_config import SegmenterConfig

DECODERS: dict[str, type[SegmentationDecoder] | type[ReleaseSegmentationDecoder]] = {
    "attentive": SegmentationDecoder,
    "comparing": SegmentationDecoder,
    "release": ReleaseSegmentationDecoder,
}


class Segmenter(EncoderModel):
    """Picture and sound to one logit per pixel, or one for each class."""

    config_class = SegmenterConfig

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        self.config = config
        if config.positions_grid is not None:
            set_picture_size(self.encoder, config.encoder.image_size, config.positions_grid)
        self.decoder = DECODERS[config.decoder](config)

    def forward(
        self,
        image: Tensor,
        audio: Tensor | None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> Tensor:
        """Logits of every pixel, of several frames those of the reference frame, the middle one.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised.
            audio: `(B, 1, M, T)` log-mel; None if no sample has sound.
            image_present: `(B,)` bool, False where a sample has no picture; its logits mean nothing.
            audio_present: the same for audio; the picture is then segmented unheard.

        Returns:
            `(B, C, H, W)` float32.

        Raises:
            ValueError: an input has another size than the configuration's.
        """
        if not self.config.hears:
            audio, audio_present = None, None
        out = self.encoder(image, audio, return_layers=True, image_present=image_present, audio_present=audio_present)
        return self.answer(image, out, audio_present)

    def answer(self, image: Tensor, out: EncoderOutput, audio_present: Tensor | None = None) -> Tensor:
        """The decoder's logits for images and the encoder's output for them; arguments as in `forward`.

        `out` holds every layer.
        """
        logits: Tensor = self.decoder(image, out, audio_present)
        return logits.float()

    def blank_answer(self) -> Tensor:
        """Logits of a blank picture and sound."""
        logits: Tensor = self(self.blank_image(), self.blank_audio())
        return logits

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Take pictures of another size from here on, with positions resampled to it.

        Raises:
            ValueError: the patch size does not divide the size.
        """
        grid = self.config.positions_grid or self.config.encoder.image_grid
        set_picture_size(self.encoder, image_size, grid)
        self.config = replace(self.config, encoder=self.encoder.config, positions_grid=grid)
