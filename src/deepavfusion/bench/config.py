"""Settings of the benchmarks. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from deepavfusion.models.config import (
    FUSION_NAMES,
    EarlyFusionConfig,
    FusionForm,
    MaskedAutoencoderConfig,
    MaskedDecodingConfig,
)


@dataclass(frozen=True)
class ModelBenchConfig:
    """Cost of a forward and backward pass of every fusion form: our form against the method written out."""

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default. Its fusion form is replaced by each of --forms."""
    autoencoder: MaskedDecodingConfig = field(default_factory=MaskedDecodingConfig)
    """Masks and decoders of the pre-training step."""
    forms: tuple[FusionForm, ...] = FUSION_NAMES
    """Fusion forms to measure."""
    batch_size: int = 1
    """Clips per pass."""
    repeats: int = 3
    """Timed passes of each variant, measured alternately; 0 only counts operations and memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""
    json: str | None = None
    """Also write the results to this JSON file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "forms", tuple(self.forms))
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")
        if self.repeats < 0:
            raise ValueError(f"repeats {self.repeats} must not be negative")
        if not self.forms:
            raise ValueError(f"forms is empty: name at least one of {', '.join(FUSION_NAMES)}")
        MaskedAutoencoderConfig.from_parts(self.model, self.autoencoder)


@dataclass(frozen=True)
class DecoderBenchConfig:
    """Cost of a pre-training step with each decoder: the paper's (self), cross, and cross with a quarter of the hidden
    patches predicted."""

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default."""
    autoencoder: MaskedDecodingConfig = field(default_factory=MaskedDecodingConfig)
    """Masks and decoders; decoder_form and predicted_share are replaced by those that are measured."""
    batch_size: int = 1
    """Clips per pass."""
    repeats: int = 3
    """Timed passes of each variant, measured alternately; 0 only counts operations and memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""
    json: str | None = None
    """Also write the results to this JSON file."""

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
    """Cost of one encoder step for growing images and sounds, in every fusion form: our form against the method written
    out.

    Operations and memory are counted without computing anything. The forms in --measured are also run, as far as they
    fit.
    """

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default. Its fusion form and input sizes are replaced by those below."""
    forms: tuple[FusionForm, ...] = FUSION_NAMES
    """Fusion forms to count."""
    image_sizes: tuple[int, ...] = (224, 320, 448)
    """Sides of the square images in pixels, each divisible by model.patch_size."""
    audio_seconds: tuple[float, ...] = (3, 10, 30)
    """Lengths of the sound in seconds, of 64 log-mel frames each; model.patch_size must divide the number of frames."""
    batch_size: int = 1
    """Clips per pass."""
    measured: tuple[FusionForm, ...] = ("dense",)
    """Fusion forms that are also run, to measure time and peak memory; [] only counts."""
    max_tflop: float = 4.0
    """Passes with more operations than this are counted, but not run."""
    memory_gib: float | None = None
    """Memory limit: larger passes are not run, and the figure shows the limit; by default the device's memory."""
    repeats: int = 1
    """Timed passes of each variant, measured alternately."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""
    json: str | None = None
    """Also write the results to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("forms", "image_sizes", "audio_seconds", "measured"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name) and name != "measured":
                raise ValueError(f"{name} is empty: name at least one")
        if extra := [form for form in self.measured if form not in self.forms]:
            raise ValueError(f"measured names {', '.join(extra)}, which --forms does not have; add it there")
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
    """Speed of the training loop's step on real clips, and its share of the machine's matrix-product rate."""

    sizes: tuple[StepSize, ...] = ("small", "vit_s", "vit_b")
    """Models to measure, by width and depth: small (192, 6), vit_s (384, 12), vit_b (768, 12), vit_l (1024, 24), and
    tiny (64, 1, 64-pixel images), to try the benchmark itself."""
    fusions: tuple[FusionForm, ...] = ("factorized",)
    """Fusion forms to measure."""
    arrangements: tuple[Arrangement, ...] = ("ours",)
    """How the model is computed: ours, or written_out, the method's formulas computed directly (all pairs formed,
    fusion tokens through the whole block, all patches embedded). Several are measured alternately."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Precision of the forward pass."""
    modes: tuple[Literal["eager", "compiled"], ...] = ("eager", "compiled")
    """eager, or compiled by torch.compile."""
    batch_size: int | Literal["best"] = 8
    """Clips per step; best doubles the batch as long as the eager step gets faster per clip and fits into memory."""
    min_batch_size: int = 1
    """With --batch_size best: clips per step at which the search begins."""
    max_batch_size: int = 1024
    """With --batch_size best: the most clips per step that are tried."""
    steps: int = 3
    """Timed steps of each variant, after two untimed ones."""
    num_workers: int = 1
    """Processes that read clips."""
    source: str | None = None
    """Clips to train on, as --data.source of pretrain; by default a few clips that the benchmark generates."""
    made_up: bool = False
    """Use one batch of random numbers in place of clips: the speed without any wait for data."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""
    json: str | None = None
    """Also write the results to this JSON file."""

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


@dataclass(frozen=True)
class ProfileBenchConfig:
    """Profile one pre-training step: its operators by their own time, and how often the host waits for the device."""

    size: StepSize = "vit_b"
    """The model, as in bench step."""
    fusion: FusionForm = "factorized"
    """Fusion form of the model."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass."""
    batch_size: int = 4
    """Clips of the step; they are random numbers."""
    top: int = 15
    """Number of operators to print."""
    against: str | None = None
    """Folder with another version of the package (such as `src` of a checkout), to be profiled first."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""
    json: str | None = None
    """Also write the results to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "top"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


PredictModel = Literal["bandstand", "vit_s", "tiny"]
PredictTask = Literal["classification", "embedding", "localization", "segmentation", "separation"]


@dataclass(frozen=True)
class PredictBenchConfig:
    """CPU seconds and memory of `predict` for every task on one long clip, each in a process of its own."""

    models: tuple[PredictModel, ...] = ("bandstand", "vit_s")
    """Models to measure: bandstand, the shipped bundle; vit_s (width 384, depth 12, 224-pixel images) with random
    weights and all heads on one encoder; and tiny, to try the benchmark itself."""
    tasks: tuple[PredictTask, ...] = ("classification", "embedding", "localization", "segmentation", "separation")
    """Tasks to measure."""
    films: tuple[bool, ...] = (True, False)
    """Localization, segmentation: with the video, without it, or both."""
    seconds: int = 600
    """Length of the clip: 640 x 360 at 25 frames a second, H.264 with a key frame every 10 s, AAC."""
    repeats: int = 1
    """Runs of each, measured alternately."""
    against: str | None = None
    """Folder with another version of the package (such as `src` of a checkout), to be measured alternately."""
    json: str | None = None
    """Also write the results to this JSON file."""

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
    """Every measurement of docs/performance.md, with the settings of the docs, each into its own JSON file.

    A part whose file exists is skipped, so a run that was stopped continues. Files measured on a GPU end in _cuda.
    """

    out: str = "docs/results"
    """Folder of the JSON files; the default is that of the docs in a checkout."""
    parts: tuple[BenchPart, ...] = ("model", "decoder", "curves", "step", "media", "predict")
    """Benchmarks to run."""
    again: bool = False
    """Repeat the parts whose files exist."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise ValueError("parts is empty: name at least one of model, decoder, curves, step, media, predict")


@dataclass(frozen=True)
class MediaBenchConfig:
    """Speed of reading training views on one core, from files and from shards with each decoder, measured
    alternately."""

    source: str | None = None
    """Folder or manifest of media files; by default generated clips of 10 s, 640 x 360."""
    views: int = 60
    """Views that are read in each way."""
    json: str | None = None
    """Also write the results to this JSON file."""

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views {self.views} must be at least 1")
