"""Comparison of every image patch with the sound, as the localizer's head and a segmenter's decoder make it.

    x = sum over layers of Linear(TN(patch token)) + Linear(view)   (B, I, 2 E) = [patch ; patch factor]
    s = Linear(TN(mean audio token)) + Linear(TN(mean fusion token))      = [sound ; sound factor]
    x = patch + sound + RMS(patch factor) * RMS(sound factor)

The elementwise product compares a patch with the sound directly; from sums alone the layers behind it would have to
compute it. In an early-fusion encoder the patches have attended to the sound in every layer; in one without fusion the
two modalities meet here for the first time, so that both can be compared with the same head. TN is standardisation by
the first training samples (`token_norm`), without which such products are almost 0 at first.

The view is a convolutional feature of the image around each patch, for small shapes, which tokens learn late.

With several frames `patch` is that of the reference, the middle frame, whose patches are scored. Each frame has the
mean audio token of its own part of the window, and the factors are means over frames. A second product compares the
deviations of patch and sound from these means, normalised likewise and averaged over frames: whether a patch changes
when the sound does. With one frame there is no second product. An encoder may read the reference alone
(`encode_frames`): then its tokens stand for every frame, and what changes is seen by the view.

From the last layer the encoder's output is read, after the final norms; from lower layers a block's output.

Shape legend: `B` batch, `T` frames, `I` image patches of a frame, `D` width of the encoder, `E` width of the
comparison.
"""

from __future__ import annotations

from torch import Tensor, nn

from deepavfusion.models.config import EarlyFusionConfig, reference_frame
from deepavfusion.models.encoder import EncoderOutput
from deepavfusion.models.frames import sound_of_frames
from deepavfusion.models.fusion import where_present
from deepavfusion.models.picture_view import PatchView
from deepavfusion.models.token_norm import TokenNorm


class PatchComparison(nn.Module):
    """Compares patches with the mean sound. Linear layers keep torch's initialisation until an owner sets another."""

    def __init__(self, encoder: EarlyFusionConfig, layers: tuple[int, ...], width: int, view_dim: int) -> None:
        super().__init__()
        dim = encoder.embed_dim
        self.layers, self.encoder_config = layers, encoder
        self.norms = nn.ModuleList(TokenNorm(dim) for _ in layers)
        self.patch = nn.ModuleList(nn.Linear(dim, 2 * width) for _ in layers)
        self.view = PatchView(encoder.image_size, encoder.patch_size, view_dim)
        self.view_linear = nn.Linear(view_dim, 2 * width)
        self.audio_norm, self.fusion_norm = TokenNorm(dim), TokenNorm(dim)
        self.audio, self.fusion = nn.Linear(dim, 2 * width), nn.Linear(dim, 2 * width)
        self.patch_factor, self.sound_factor = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)

    def compare(self, picture: Tensor, tokens: EncoderOutput, audio_present: Tensor | None = None) -> Tensor:
        """Compared patches of the reference frame.

        Args:
            picture: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised.
            tokens: of the encoder, with every layer.
            audio_present: `(B,)` bool; a sample without sound is compared with what the fusion tokens know alone.

        Returns:
            `(B, I, E)`.
        """
        assert tokens.layers is not None
        assert tokens.image is not None
        frames = picture if picture.ndim == 5 else picture[:, None]
        views = self.view_linear(self.view(frames.flatten(0, 1)))
        patches = views.unflatten(0, frames.shape[:2])  # (B, T, I, 2 E)
        for layer, norm, linear in zip(self.layers, self.norms, self.patch, strict=True):
            own = tokens.image if layer == len(tokens.layers) - 1 else tokens.layers[layer].image
            patches = patches + linear(norm(own)).unflatten(1, (self.encoder_config.num_encoded_frames, -1))
        sound = self.fusion(self.fusion_norm(tokens.fusion.mean(dim=1, keepdim=True)))
        if tokens.audio is not None:
            heard = self.audio(self.audio_norm(sound_of_frames(tokens.audio, self.encoder_config)))
            sound = sound + where_present(heard, audio_present)
        seen, seen_factor = patches.chunk(2, dim=-1)  # (B, T, I, E)
        heard, heard_factor = sound[:, :, None].chunk(2, dim=-1)  # (B, T, 1, E), without sound (B, 1, 1, E)
        seen_mean, heard_mean = seen_factor.mean(dim=1), heard_factor.mean(dim=1)
        x: Tensor = seen[:, reference_frame(seen.shape[1])] + heard.mean(dim=1)
        x = x + self.patch_factor(seen_mean) * self.sound_factor(heard_mean)
        if heard.shape[1] > 1:
            changes = self.patch_factor(seen_factor - seen_mean[:, None])
            x = x + (changes * self.sound_factor(heard_factor - heard_mean[:, None])).mean(dim=1)
        return x
