"""Settings of masked pre-training. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from deepavfusion.configuration import OptimConfig, RunConfig, TrainingConfig, check_rate, is_changed
from deepavfusion.models.config import (
    AlignmentConfig,
    EarlyFusionConfig,
    MaskedAutoencoderConfig,
    MaskedDecodingConfig,
)

MASKS = ("image_mask_ratio", "audio_mask_ratio")
"""Settings of the autoencoder that hold without reconstruction: what the encoder sees of the first moment."""


@dataclass(frozen=True)
class InitConfig:
    """Weights to start from; without them the weights are initialised at random."""

    encoder: str | None = None
    """An encoder to start from: a finished run, a model folder, shipped:NAME, hf:OWNER/NAME, or a file of published
    DeepAVFusion weights. Of two separate encoders both ViTs are taken, and the fusion between them starts at random."""
    image: str | None = None
    """MAE weights of the image ViT: a local file, or hf:OWNER/NAME on the Hugging Face hub."""
    audio: str | None = None
    """AudioMAE weights of the audio ViT: a local file, or hf:OWNER/NAME on the Hugging Face hub."""
    transpose_audio_patches: bool = True
    """Transpose AudioMAE's (time, frequency) patch kernels to our (frequency, time); the release did not."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Masked pre-training of the early-fusion encoder on clips without labels."""

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    autoencoder: MaskedDecodingConfig = field(default_factory=MaskedDecodingConfig)
    """Masks and decoders."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """Alignment of two moments of a clip."""
    init: InitConfig = field(default_factory=InitConfig)
    """Weights to start from."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and learning-rate schedule."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        if self.init.encoder is not None and (self.init.image is not None or self.init.audio is not None):
            raise ValueError("init.encoder brings both ViTs: leave out --init.image and --init.audio")
        try:  # the parts against each other
            self.autoencoder_config  # noqa: B018
        except ValueError as error:
            section = "" if str(error).startswith("alignment.") else "autoencoder."
            raise ValueError(f"{section}{error}") from error
        check_rate(self.optim, self.training.batch_size, "pre-training", recipe_blr=1.5e-4)

    @property
    def autoencoder_config(self) -> MaskedAutoencoderConfig:
        return MaskedAutoencoderConfig.from_parts(self.model, self.autoencoder, self.alignment)

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        idle = {}
        if self.init.audio is None:
            idle["init.transpose_audio_patches"] = "without --init.audio"
        if self.init.image is None and self.init.audio is None:
            idle["optim.pretrained_ramp"] = "without --init.image or --init.audio"
        if not self.model.fused:
            for name in ("model.fusion", "model.fusion_attn_ratio", "model.fusion_mlp_ratio", "alignment.together"):
                idle[name] = "when --model.fusion_layers is none"
        floors = ("image_variance_floor", "audio_variance_floor")
        if not self.autoencoder.norm_pix_loss:
            idle |= dict.fromkeys((f"autoencoder.{name}" for name in floors), "with --autoencoder.norm_pix_loss false")
        if not self.autoencoder.weight:
            decoding = [f.name for f in fields(self.autoencoder) if f.name not in ("weight", *MASKS)]
            idle |= dict.fromkeys((f"autoencoder.{name}" for name in decoding), "with --autoencoder.weight 0")
        if not self.alignment.weight:
            aligned = [f.name for f in fields(self.alignment) if f.name != "weight"]
            idle |= dict.fromkeys((f"alignment.{name}" for name in aligned), "without --alignment.weight")
        found = [f"--{flag} has no effect {why}" for flag, why in idle.items() if is_changed(self, flag)]
        if self.model.num_frames > 1 and self.data.frame != "random":
            found.append("--data.frame has no effect with --model.num_frames")
        if self.model.num_frames == 1 and self.data.still:
            found.append("--data.still has no effect with one frame")
        return found
