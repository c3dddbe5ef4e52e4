"""Settings of the benchmarks; torch-free, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from deepavfusion.models.config import EarlyFusionConfig, FusionForm, MaskedAutoencoderConfig, MaskedDecodingConfig


@dataclass(frozen=True)
class ModelBenchConfig:
    """Cost of a forward and backward pass of every fusion form, ours against the method written out."""

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default. Its fusion form is replaced by each of forms."""
    autoencoder: MaskedDecodingConfig = field(default_factory=MaskedDecodingConfig)
    """Masks and decoders of the pre-training step."""
    forms: tuple[FusionForm, ...] = ("token", "dense", "factorized", "bilinear")
    """Fusion forms to measure."""
    batch_size: int = 1
    """Clips per pass."""
    repeats: int = 3
    """Timed passes of each variant, interleaved; 0 counts operations and memory only."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure time and memory; auto takes CUDA if there is one."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "forms", tuple(self.forms))
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")
        if self.repeats < 0:
            raise ValueError(f"repeats {self.repeats} must not be negative")
        if not self.forms:
            raise ValueError("forms is empty: name at least one of token, dense, factorized, bilinear")
        MaskedAutoencoderConfig.from_parts(self.model, self.autoencoder)


@dataclass(frozen=True)
class DecoderBenchConfig:
    """Cost of a pre-training step with each decoder: the paper's, cross, and cross with a quarter predicted."""

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default."""
    autoencoder: MaskedDecodingConfig = field(default_factory=MaskedDecodingConfig)
    """Masks and decoders; decoder_form and predicted_share are replaced by each of those measured."""
    batch_size: int = 1
    """Clips per pass."""
    repeats: int = 3
    """Timed passes of each variant, interleaved; 0 counts operations and memory only."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure time and memory; auto takes CUDA if there is one."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")
        if self.repeats < 0:
            raise ValueError(f"repeats {self.repeats} must not be negative")
        MaskedAutoencoderConfig.from_parts(self.model, self.autoencoder)


FRAMES_PER_SECOND = 64
"""Log-mel frames of a second of sound, as in `audio.py`, which imports torch."""


@dataclass(frozen=True)
class CurvesBenchConfig:
    """Cost of an encoder step as pictures and sound grow, of every fusion form, ours against the method written out.

    Operations and memory are counted without computing anything; the forms named by measured are also run where they
    fit.
    """

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default. Its fusion form and input sizes are replaced by those below."""
    forms: tuple[FusionForm, ...] = ("token", "dense", "factorized", "bilinear")
    """Fusion forms to count."""
    image_sizes: tuple[int, ...] = (224, 320, 448)
    """Sides of the square pictures in pixels, each divisible by model.patch_size."""
    audio_seconds: tuple[float, ...] = (3, 10, 30)
    """Lengths of the sound; 64 log-mel frames a second, which model.patch_size must divide."""
    batch_size: int = 1
    """Clips per pass."""
    measured: tuple[FusionForm, ...] = ("dense",)
    """Fusion forms that are also run, for their time and peak memory; [] only counts."""
    max_tflop: float = 4.0
    """Passes of more operations than this are counted, not run."""
    memory_gib: float | None = None
    """What a pass must fit into, to be run and in the figure; by default what the device has."""
    repeats: int = 1
    """Timed passes of each variant, interleaved."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes CUDA if there is one."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("forms", "image_sizes", "audio_seconds", "measured"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name) and name != "measured":
                raise ValueError(f"{name} is empty: name at least one")
        if extra := [form for form in self.measured if form not in self.forms]:
            raise ValueError(f"measured names {', '.join(extra)}, which forms does not: add it to --forms")
        for name in ("batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.max_tflop <= 0:
            raise ValueError(f"max_tflop {self.max_tflop} must be positive")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ValueError(f"memory_gib {self.memory_gib} must be positive")
        for form in self.forms:
            for side in self.image_sizes:
                for seconds in self.audio_seconds:
                    self.encoder(form, side, seconds)

    def encoder(self, form: FusionForm, side: int, seconds: float) -> EarlyFusionConfig:
        """The encoder for pictures and sound of a size."""
        audio_size = (self.model.audio_size[0], round(FRAMES_PER_SECOND * seconds))
        return replace(self.model, fusion=form, image_size=(side, side), audio_size=audio_size)


StepSize = Literal["tiny", "small", "vit_s", "vit_b", "vit_l"]
Arrangement = Literal["ours", "written_out"]


@dataclass(frozen=True)
class StepBenchConfig:
    """Speed of whole training steps: real clips, the training loop's own step, against the machine's matmul rate."""

    sizes: tuple[StepSize, ...] = ("small", "vit_s", "vit_b")
    """Models to measure: small (width 192, depth 6), vit_s (384, 12), vit_b (768, 12), vit_l (1024, 24), and tiny
    (64, 1, pictures of 64 x 64), to try the benchmark itself."""
    fusions: tuple[FusionForm, ...] = ("factorized",)
    """Fusion forms to measure."""
    arrangements: tuple[Arrangement, ...] = ("ours",)
    """How the model is computed: ours, or written_out, as its formulas stand: all pairs formed, fusion tokens through
    the whole block, all patches embedded. Those named take turns."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Arithmetic of the forward pass."""
    modes: tuple[Literal["eager", "compiled"], ...] = ("eager", "compiled")
    """Whether the model runs as written or through torch.compile."""
    batch_size: int | Literal["best"] = 8
    """Clips per step; best doubles them as long as the eager step gets faster per clip and fits into memory."""
    min_batch_size: int = 1
    """Clips per step that the search for the best begins with."""
    max_batch_size: int = 1024
    """The most clips per step that the search for the best tries."""
    steps: int = 3
    """Timed steps of each variant, after two that are not timed."""
    num_workers: int = 1
    """Processes that read clips."""
    source: str | None = None
    """Clips to train on, as data.source of pretrain; a few that the package writes itself by default."""
    made_up: bool = False
    """Step on one batch of noise in place of clips that are read: what the device does when it never waits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes CUDA if there is one."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("sizes", "fusions", "arrangements", "precisions", "modes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: name at least one")
        for name in ("batch_size", "min_batch_size", "max_batch_size", "steps"):
            if getattr(self, name) != "best" and getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.min_batch_size > self.max_batch_size:
            raise ValueError(f"min_batch_size {self.min_batch_size} is more than max_batch_size {self.max_batch_size}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")


PredictModel = Literal["bandstand", "vit_s", "tiny"]
PredictTask = Literal["classification", "embedding", "localization", "segmentation", "separation"]


@dataclass(frozen=True)
class PredictBenchConfig:
    """What `predict` costs: CPU seconds and memory of every task on one long clip, each in a process of its own."""

    models: tuple[PredictModel, ...] = ("bandstand", "vit_s")
    """Models to measure: bandstand, which the package ships; vit_s (width 384, depth 12, pictures of 224 x 224) with
    random weights, all heads on one encoder; and tiny, to try the benchmark itself."""
    tasks: tuple[PredictTask, ...] = ("classification", "embedding", "localization", "segmentation", "separation")
    """Tasks to measure."""
    films: tuple[bool, ...] = (True, False)
    """Localization, segmentation: with the film, without it, or both."""
    seconds: int = 600
    """Length of the clip: 640 x 360 at 25 frames a second, H.264 with a key frame every 10 s, AAC."""
    repeats: int = 1
    """Runs of each, in turn."""
    against: str | None = None
    """Folder that holds another version of the package (such as `src` of a checkout), to be measured in turn."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("models", "tasks", "films"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: name at least one")
        for name in ("seconds", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


BenchPart = Literal["model", "decoder", "curves", "step", "media", "predict"]


@dataclass(frozen=True)
class AllBenchConfig:
    """Every measurement behind docs/performance.md with the settings of the docs, each into its own JSON file.

    A part whose file is there is skipped, so that what was stopped goes on. The files of a GPU end in _cuda, beside
    those of a CPU.
    """

    out: str = "docs/results"
    """Folder of the JSON files; the default is the docs' own in a checkout."""
    parts: tuple[BenchPart, ...] = ("model", "decoder", "curves", "step", "media", "predict")
    """What to measure."""
    again: bool = False
    """Measure parts that are there once more."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes CUDA if there is one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise ValueError("parts is empty: name at least one of model, decoder, curves, step, media, predict")


@dataclass(frozen=True)
class MediaBenchConfig:
    """Speed of reading training views, from files and from shards with each decoder, in turn on one core."""

    source: str | None = None
    """Folder or manifest of media files; by default clips of 10 s, 640 x 360, written for the purpose."""
    views: int = 60
    """Views read in each way."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views {self.views} must be at least 1")
