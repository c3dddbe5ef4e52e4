"""Model configurations: plain frozen dataclasses. Never imports torch.

Field docstrings are the help texts of the command line. Every check names the field, its value and the fix.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config", bound="ModelConfig")
FusionForm = Literal["token", "dense", "factorized", "bilinear"]
FUSION_NAMES: tuple[FusionForm, ...] = get_args(FusionForm)
Head = Literal["image", "audio", "fusion", "concat"]
Modalities = Literal["both", "image", "audio"]
DecoderForm = Literal["self", "cross"]
PatchEmbedForm = Literal["linear", "convolutional"]
FramesEncoded = Literal["all", "reference"]
StreamsCompared = Literal["all", "fusion"]


@dataclass(frozen=True)
class ModelConfig:
    """Base of all model configurations: how they are saved and read."""

    @classmethod
    def from_dict(cls: type[Config], values: dict[str, Any]) -> Config:
        """Build from a JSON-like dictionary, the encoder nested.

        Raises:
            ValueError: keys that this version does not know, or lacks, or a value of another type; names them.
        """
        known = {f.name: f for f in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{cls.__name__} does not know {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        lacking = [n for n, f in known.items() if f.default is f.default_factory is MISSING and n not in values]
        if lacking:
            raise ValueError(f"{cls.__name__} needs {', '.join(lacking)}")
        types, found = get_type_hints(cls), dict(values)
        for name, part in (("encoder", EarlyFusionConfig), ("alignment", AlignmentConfig)):
            if isinstance(found.get(name), dict):
                found[name] = part.from_dict(found[name])
        for name, value in found.items():
            if not _is_of(value, types[name]):
                wanted = types[name].__name__ if isinstance(types[name], type) else str(types[name])
                raise ValueError(f"{name} {value!r} must be {wanted.replace('typing.', '')}")
        return cls(**found)

    def record(self) -> dict[str, Any]:
        """As it is saved.

        What came later and is as it was before, such as one frame per clip, is left out: earlier versions read it.
        """
        record = asdict(self)
        for part in (record, record.get("encoder", {})):
            for name in [name for name, before in _CAME_LATER.items() if name in part and part[name] == before]:
                del part[name]
        return record


@dataclass(frozen=True)
class EarlyFusionConfig(ModelConfig):
    """The two-stream encoder with fusion tokens; the defaults are ViT-B as in the paper."""

    image_size: tuple[int, int] = (224, 224)
    """Image height and width in pixels, both divisible by patch_size."""
    audio_size: tuple[int, int] = (128, 192)
    """Bands and frames of the log-mel spectrogram (64 frames per second), both divisible by patch_size."""
    num_frames: int = 1
    """Frames per clip, evenly spaced over the window of sound."""
    encode_frames: FramesEncoded = "all"
    """Which of several frames become tokens: all, or the middle one alone; the others are then for a head that looks at
    them with a few convolutions: a localizer's, or the segmentation decoder `comparing`."""
    patch_size: int = 16
    """Side of a square patch, in pixels of the image and in cells of the spectrogram."""
    patch_embed: PatchEmbedForm = "linear"
    """From a patch to its token: linear, as published, or convolutional, which small models learn faster with."""
    embed_dim: int = 768
    """Width of all three token streams."""
    depth: int = 12
    """Number of transformer layers."""
    num_heads: int = 12
    """Attention heads; must divide embed_dim."""
    mlp_ratio: float = 4.0
    """Hidden width of the image and audio MLPs, as a multiple of embed_dim."""
    fusion: FusionForm = "factorized"
    """How fusion tokens read the two streams: token, dense, factorized or bilinear."""
    fusion_layers: Literal["all", "none"] | tuple[int, ...] = "all"
    """Which layers fuse: all, none, or zero-based layer numbers such as [10,11]."""
    num_tokens: tuple[int, int, int] = (16, 8, 8)
    """Number of fusion tokens, image-aggregation tokens and audio-aggregation tokens."""
    fusion_attn_ratio: float = 0.25
    """Query and key width of the fusion attention, as a multiple of embed_dim."""
    fusion_mlp_ratio: float = 1.0
    """Hidden width of the fusion MLP, as a multiple of embed_dim."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch in training (stochastic depth), the same for all layers."""

    def __post_init__(self) -> None:
        # JSON and YAML know no tuples.
        for name in ("image_size", "audio_size", "num_tokens"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.fusion_layers, str):
            object.__setattr__(self, "fusion_layers", tuple(self.fusion_layers))
        for name in ("num_frames", "patch_size", "embed_dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("image_size", "audio_size"):
            size = getattr(self, name)
            if len(size) != 2 or any(n < 1 or n % self.patch_size for n in size):
                raise ValueError(
                    f"{name} {list(size)} must be two positive multiples of patch_size {self.patch_size}: "
                    f"change {name} or patch_size"
                )
        if self.encode_frames not in get_args(FramesEncoded):
            raise ValueError(f"encode_frames {self.encode_frames!r} must be all or reference")
        if self.patch_embed not in get_args(PatchEmbedForm):
            raise ValueError(f"patch_embed {self.patch_embed!r} must be linear or convolutional")
        if self.patch_embed == "convolutional" and self.patch_size % 4:
            raise ValueError(f"patch_size {self.patch_size} must be divisible by 4 with patch_embed convolutional")
        if self.embed_dim % 4:
            raise ValueError(f"embed_dim {self.embed_dim} must be divisible by 4 (sine-cosine positions)")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide embed_dim {self.embed_dim}: "
                f"choose one of {[h for h in range(1, 33) if self.embed_dim % h == 0]}"
            )
        if self.fusion not in FUSION_NAMES:
            raise ValueError(f"fusion {self.fusion!r} must be {', '.join(FUSION_NAMES[:-1])} or {FUSION_NAMES[-1]}")
        if len(self.num_tokens) != 3 or any(n < 0 for n in self.num_tokens) or self.num_tokens[0] < 1:
            raise ValueError(f"num_tokens {list(self.num_tokens)} must be three counts, the first at least 1")
        if self.fusion == "factorized" and min(self.num_tokens) < 1:
            raise ValueError(
                f"num_tokens {list(self.num_tokens)}: the factorized form needs aggregation tokens of both kinds"
            )
        if self.attn_dim < self.num_heads or self.attn_dim % self.num_heads:
            raise ValueError(
                f"fusion_attn_ratio {self.fusion_attn_ratio} gives an attention width of "
                f"{self.fusion_attn_ratio * self.embed_dim:g}, which num_heads {self.num_heads} must divide"
            )
        if self.mlp_ratio <= 0 or self.fusion_mlp_ratio <= 0:
            raise ValueError("mlp_ratio and fusion_mlp_ratio must be positive")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path {self.drop_path} must be in [0, 1)")
        if isinstance(self.fusion_layers, str):
            if self.fusion_layers not in ("all", "none"):
                raise ValueError(f"fusion_layers {self.fusion_layers!r} must be all, none or a list of layer numbers")
        elif any(not 0 <= i < self.depth for i in self.fusion_layers) or sorted(set(self.fusion_layers)) != list(
            self.fusion_layers
        ):
            raise ValueError(
                f"fusion_layers {list(self.fusion_layers)} must be ascending layer numbers from 0 to {self.depth - 1}"
            )

    @property
    def attn_dim(self) -> int:
        """Query and key width of the fusion attention."""
        return int(self.fusion_attn_ratio * self.embed_dim)

    @property
    def fused(self) -> tuple[int, ...]:
        """The numbers of the layers that fuse."""
        if self.fusion_layers == "all":
            return tuple(range(self.depth))
        return () if self.fusion_layers == "none" else tuple(int(i) for i in self.fusion_layers)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the picture of one clip: `(3, H, W)`, of several frames `(T, 3, H, W)`."""
        return (3, *self.image_size) if self.num_frames == 1 else (self.num_frames, 3, *self.image_size)

    @property
    def image_grid(self) -> tuple[int, int]:
        """Image patches down and across, of one frame."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Audio patches along frequency and along time."""
        return self.audio_size[0] // self.patch_size, self.audio_size[1] // self.patch_size

    @property
    def num_encoded_frames(self) -> int:
        """Frames that become tokens."""
        return self.num_frames if self.encode_frames == "all" else 1

    def with_own_frames(self) -> EarlyFusionConfig:
        """Without the frames that the encoder does not read, which belong to the head that it was trained with."""
        return replace(self, num_frames=1, encode_frames="all") if self.encode_frames == "reference" else self

    @property
    def num_image_patches(self) -> int:
        """Of all encoded frames together."""
        return self.num_encoded_frames * self.image_grid[0] * self.image_grid[1]

    @property
    def num_audio_patches(self) -> int:
        return self.audio_grid[0] * self.audio_grid[1]


@dataclass(frozen=True, kw_only=True)
class MaskedDecodingConfig(ModelConfig):
    """Masking and the two reconstruction decoders; the defaults are the paper's."""

    decoder_dim: int = 512
    """Width of both decoders."""
    image_decoder_depth: int = 8
    """Layers of the image decoder."""
    audio_decoder_depth: int = 8
    """Layers of the audio decoder."""
    decoder_num_heads: int = 16
    """Attention heads of the decoders; must divide decoder_dim."""
    decoder_form: DecoderForm = "self"
    """How mask tokens read the encoder's output: self, by self-attention among all tokens (the paper's); cross, by
    cross-attention to the visible and fusion tokens (cheaper)."""
    predicted_share: float = 1.0
    """Share of the hidden patches that a training step predicts, drawn anew for every sample; with decoder_form cross
    the others cost nothing. Evaluation predicts all."""
    image_mask_ratio: float = 0.75
    """Share of the image patches that is hidden."""
    audio_mask_ratio: float = 0.8
    """Share of the log-mel patches that is hidden."""
    norm_pix_loss: bool = True
    """Normalise every target patch by its own mean and standard deviation."""
    image_variance_floor: float = 0.0
    """Added to the variance of an image patch before normalisation, so that flat patches do not become noise targets;
    in squared units of ImageNet-normalised pixels. The paper has 0."""
    audio_variance_floor: float = 0.0
    """The same for log-mel patches, in squared units of log10 power."""
    weight: float = 1.0
    """Weight of the reconstruction loss. 0 leaves it out, for training by alignment alone, and nothing is decoded."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight {self.weight} must not be negative")
        for name in ("decoder_dim", "image_decoder_depth", "audio_decoder_depth", "decoder_num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.decoder_dim % 4 or self.decoder_dim % self.decoder_num_heads:
            raise ValueError(
                f"decoder_dim {self.decoder_dim} must be divisible by 4 and by decoder_num_heads "
                f"{self.decoder_num_heads}"
            )
        if self.decoder_form not in ("self", "cross"):
            raise ValueError(f"decoder_form {self.decoder_form!r} must be self or cross")
        if not 0.0 < self.predicted_share <= 1.0:
            raise ValueError(f"predicted_share {self.predicted_share} must be above 0 and at most 1")
        for name in ("image_mask_ratio", "audio_mask_ratio"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name)} must be between 0 and 1, both excluded")
        for name in ("image_variance_floor", "audio_variance_floor"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig(ModelConfig):
    """Contrastive alignment of two moments of a clip, beside the reconstruction or in its place; not in the paper."""

    weight: float = 0.0
    """Weight of the alignment loss; 0 leaves it out."""
    dim: int = 64
    """Width of the joint space of images and sounds."""
    hidden_dim: int = 256
    """Width of the hidden layer of the projections."""
    temperature: float = 0.1
    """Initial temperature of InfoNCE; it is learned."""
    image_mask_ratio: float = 0.5
    """Share of the image patches that is hidden where the image is encoded alone."""
    audio_mask_ratio: float = 0.5
    """Share of the log-mel patches that is hidden where the audio is encoded alone."""
    alone_share: float = 0.0
    """Share of the clips whose first moment is encoded with one sense alone in training, half of them with the image,
    half with the audio. With both senses a stream can find the other sense through the fusion tokens, and learns less
    of its own."""
    together: StreamsCompared = "all"
    """Which streams of a first moment that is encoded with both senses are compared: all, or the fusion tokens alone,
    so that the image and the audio stream learn from what is encoded alone."""

    def __post_init__(self) -> None:
        if self.together not in get_args(StreamsCompared):
            raise ValueError(f"together {self.together!r} must be all or fusion")
        if not 0 <= self.alone_share <= 1:
            raise ValueError(f"alone_share {self.alone_share} must be a share between 0 and 1")
        if self.weight < 0:
            raise ValueError(f"weight {self.weight} must not be negative")
        for name in ("dim", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not 0.02 <= self.temperature <= 10:
            raise ValueError(f"temperature {self.temperature} must be between 0.02 and 10")
        for name in ("image_mask_ratio", "audio_mask_ratio"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 0 and below 1")


_CAME_LATER: dict[str, Any] = {
    "num_frames": 1,
    "encode_frames": "all",
    "patch_embed": "linear",
    "weight": 1.0,
    "alignment": asdict(AlignmentConfig()),
}
"""Settings that earlier versions do not know, with the values that change nothing."""


@dataclass(frozen=True)
class MaskedAutoencoderConfig(MaskedDecodingConfig):
    """An encoder configuration and the masked-reconstruction decoders on top of it."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder to pre-train."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """Alignment of two moments, if it has a weight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder.encode_frames != "all":
            raise ValueError(
                f"encode_frames {self.encoder.encode_frames} is for heads of tasks: pre-training encodes all"
            )
        if not self.weight and not self.alignment.weight:
            raise ValueError("weight 0 leaves nothing to learn from without --alignment.weight")
        if self.weight and self.alignment.weight and self.alignment.alone_share:
            share = self.alignment.alone_share
            raise ValueError(f"alignment.alone_share {share} would hide a sense from the reconstruction; set weight 0")
        for name, patches in (("image", self.encoder.num_image_patches), ("audio", self.encoder.num_audio_patches)):
            ratio = getattr(self.alignment, f"{name}_mask_ratio")
            if self.alignment.weight and int(patches * (1 - ratio)) < 1:
                raise ValueError(f"alignment.{name}_mask_ratio {ratio} keeps none of {patches} {name} patches")
        for modality, patches, kept, predicted in (
            ("image", self.encoder.num_image_patches, self.num_image_kept, self.num_image_predicted),
            ("audio", self.encoder.num_audio_patches, self.num_audio_kept, self.num_audio_predicted),
        ):
            if not 0 < kept < patches:
                ratio = getattr(self, f"{modality}_mask_ratio")
                raise ValueError(
                    f"{modality}_mask_ratio {ratio} keeps {kept} of {patches} {modality} patches: "
                    f"at least one must stay and one must go"
                )
            if predicted < 1:
                raise ValueError(
                    f"predicted_share {self.predicted_share} predicts none of {patches - kept} hidden {modality} "
                    f"patches: raise it to {1 / (patches - kept):.2g} or more"
                )

    @property
    def num_image_kept(self) -> int:
        return int(self.encoder.num_image_patches * (1 - self.image_mask_ratio))

    @property
    def num_audio_kept(self) -> int:
        return int(self.encoder.num_audio_patches * (1 - self.audio_mask_ratio))

    @property
    def num_image_predicted(self) -> int:
        """Hidden image patches that a training step predicts."""
        return round(self.predicted_share * (self.encoder.num_image_patches - self.num_image_kept))

    @property
    def num_audio_predicted(self) -> int:
        """Hidden audio patches that a training step predicts."""
        return round(self.predicted_share * (self.encoder.num_audio_patches - self.num_audio_kept))

    @classmethod
    def from_parts(
        cls, encoder: EarlyFusionConfig, decoding: MaskedDecodingConfig, alignment: AlignmentConfig | None = None
    ) -> MaskedAutoencoderConfig:
        """Join the parts that a training configuration keeps apart; no alignment unless one is given."""
        return cls(encoder=encoder, alignment=alignment or AlignmentConfig(), **asdict(decoding))


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ModelConfig):
    """The encoder with one linear classifier per stream; their logits are averaged."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    classes: tuple[str, ...]
    """Class names, in the order of their numbers."""
    heads: tuple[Head, ...] = ("image", "audio", "fusion")
    """Inputs of the classifiers: the pooled tokens of a stream, or concat, those of image and audio concatenated."""
    modalities: Modalities = "both"
    """Inputs that are used; the other modality is ignored where it is given."""
    pooling: Literal["mean", "attentive"] = "mean"
    """How the tokens of a stream become one vector: their mean, or attention pooling by one learned query."""
    batch_norm: bool = False
    """Normalise every pooled feature by BatchNorm without scale and shift, as in a linear probe."""
    multi_label: bool = False
    """Whether a clip may have several labels."""

    def __post_init__(self) -> None:
        for name in ("classes", "heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.classes:
            raise ValueError("classes must name at least one class")
        check_classes(self.classes)
        if self.modalities not in ("both", "image", "audio"):
            raise ValueError(f"modalities {self.modalities!r} must be both, image or audio")
        if self.pooling not in ("mean", "attentive"):
            raise ValueError(f"pooling {self.pooling!r} must be mean or attentive")
        possible = possible_heads(self.encoder, self.modalities)
        if not self.heads or not set(self.heads) <= set(possible) or len(set(self.heads)) < len(self.heads):
            raise ValueError(
                f"heads {list(self.heads)} must be some of {', '.join(possible)}, each once: those that modalities "
                f"{self.modalities} and an encoder that fuses in {len(self.encoder.fused)} layers can feed"
            )

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the heads read."""
        read = {*self.heads, *(("image", "audio") if "concat" in self.heads else ())}
        return tuple(stream for stream in ("image", "audio", "fusion") if stream in read)


def check_classes(classes: tuple[str, ...]) -> None:
    """Raises ValueError where a class is named twice."""
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise ValueError(f"classes holds {', '.join(sorted(twice)[:5])} more than once")


def check_layers(layers: tuple[int, ...], depth: int) -> None:
    """Raises ValueError unless these are ascending zero-based numbers of an encoder's layers."""
    if any(not 0 <= i < depth for i in layers) or sorted(set(layers)) != list(layers):
        raise ValueError(f"layers {list(layers)} must be ascending layer numbers from 0 to {depth - 1}")


def reference_frame(num_frames: int) -> int:
    """Which of several frames masks and maps are of: the middle one, of an even number the later of the two."""
    return num_frames // 2


def possible_heads(encoder: EarlyFusionConfig, modalities: Modalities) -> tuple[Head, ...]:
    """The heads that have something to read: fusion tokens that never fuse are constants."""
    image, audio = modalities != "audio", modalities != "image"
    heads: dict[Head, bool] = {
        "image": image,
        "audio": audio,
        "fusion": bool(encoder.fused),
        "concat": image and audio,
    }
    return tuple(head for head, is_possible in heads.items() if is_possible)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type as annotations have it; lists stand for tuples, which JSON does not know."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (Union, UnionType):
        return any(_is_of(value, part) for part in parts)
    if origin is tuple:
        kinds = parts[:1] * len(value) if isinstance(value, (list, tuple)) and parts[-1] is Ellipsis else parts
        return isinstance(value, (list, tuple)) and len(kinds) == len(value) and all(map(_is_of, value, kinds))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
