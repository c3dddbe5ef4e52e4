"""Settings of evaluation, comparison, embedding and nearest neighbours. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.data.cluster import check_address
from deepavfusion.data.parts import parse_part
from deepavfusion.models.config import Modalities


def named_places(entries: Sequence[str]) -> dict[str, str]:
    """Places by name, from entries NAME=PLACE of --baselines.

    Raises:
        ValueError: an entry of another form, or a name given twice.
    """
    places: dict[str, str] = {}
    for entry in entries:
        name, equals, place = entry.partition("=")
        if not (name.strip() and equals and place.strip()):
            raise ValueError(f"baselines {entry!r} must be NAME=PLACE, all of them [NAME=PLACE,...]")
        if name.strip() in places:
            raise ValueError(f"baselines names {name.strip()!r} twice")
        places[name.strip()] = place.strip()
    return places


@dataclass(frozen=True)
class EvaluationData:
    """The clips to evaluate on."""

    source: str
    """A folder of video files, a manifest, shards, or hf:OWNER/NAME[:SPLIT]."""
    split: str = "test"
    """The split to use, or all. A source without splits counts as test."""
    num_workers: int = 2
    """Processes that read clips; 0 reads in this process."""

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of every evaluation of a trained model."""

    run: str
    """A finished run, a model folder, a bundle, shipped:NAME, or hf:OWNER/NAME."""
    data: EvaluationData
    """The clips."""
    out: str | None = None
    """Folder of the results; by default evaluation/ in the run, with a folder per source and protocol."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Other models to compare with on the same clips, [NAME=RUN,...]."""
    batch_size: int = field(default=32, kw_only=True)
    """Clips per forward pass of one process."""
    precision: Literal["auto", "float32", "bfloat16"] = field(default="auto", kw_only=True)
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", kw_only=True)
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "baselines", tuple(self.baselines))
        if self.out is None and self.run.startswith(("shipped:", "hf:")):
            raise ValueError(f"out: {self.run} is no folder to put results into; name one with --out")
        self.at_least(1, "batch_size")
        _ = self.places

    @property
    def places(self) -> dict[str, str]:
        """Run or folder of every baseline by name. Raises ValueError on an entry that is not NAME=PLACE."""
        return named_places(self.baselines)

    def at_least(self, least: int, *names: str) -> None:
        """Raise ValueError naming the first of the settings `names` that is below `least`, 0 or 1."""
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} {getattr(self, name)} must {'not be negative' if not least else 'be at least 1'}"
                )


@dataclass(frozen=True)
class EvaluateConfig(EvaluationConfig):
    """Score a trained classifier on labelled clips."""

    windows: int = 1
    """Windows per clip whose logits are averaged; 1 is the centre window."""
    modalities: Modalities = "both"
    """Use both modalities, or only image or audio, of a model trained on both."""
    features: str | None = None
    """Score features that `embed` wrote with this run's encoder, instead of reading clips."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Earlier evaluations to compare with, clip by clip, [NAME=FOLDER,...]."""
    title: str = "Classification"
    """Headline in a report."""
    batch_size: int = field(default=32, kw_only=True)
    """Windows per forward pass of one process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "windows")
        if self.features is not None and (self.windows > 1 or self.modalities != "both"):
            raise ValueError(f"features {self.features}: windows and modalities were fixed when they were written")


@dataclass(frozen=True)
class CompareConfig:
    """Difference of two evaluations on the clips that both have scored, with a paired bootstrap interval."""

    a: str
    """Folder of an evaluation, or of several seeds of one model, separated by commas."""
    b: str
    """The same of the other model, with its seeds in the same order."""
    metric: str = "auto"
    """The score to compare: top1, mean_ap or hit_at_1 of classifiers, or a score in samples.npz of other tasks; auto is
    top1 for one label per clip, mean_ap for several, and the first score of other tasks."""
    head: str = "average"
    """Which logits of a classifier: average, or those of one head."""
    confidence: float = 0.95
    """Coverage of the interval."""
    num_resamples: int = 10_000
    """Bootstrap resamples; mean_ap takes much longer per resample than the others."""
    paired_seeds: bool = True
    """Whether the seeds of A and B belong together (same encoder, same order of clips)."""
    out: str | None = None
    """JSON file of the result; by default none."""


@dataclass(frozen=True)
class EmbedConfig:
    """Write an encoder's features of clips to a file."""

    from_: str
    """The encoder: a finished run, a model folder, a bundle, shipped:NAME, hf:OWNER/NAME, or a file of published
    weights."""
    data: EvaluationData
    """The clips."""
    out: str
    """The file to write: .npz, or .parquet (needs pyarrow)."""
    part: str = "1/1"
    """Embed only one part of the clips, such as 3/8; a run without --part joins the parts afterwards."""
    ray: str | None = None
    """Work on a Ray cluster: auto, local, host:port or ray://host:port (docs/scaling.md)."""
    tokens: Literal["pooled", "all", "joint"] = "pooled"
    """pooled: the mean token of every stream; all: all tokens; joint: image and sound, each encoded alone, as unit
    vectors of the joint space (of a model pre-trained with --alignment.weight)."""
    modalities: Modalities = "both"
    """Give the encoder both modalities, or only image or audio."""
    untrained: bool = False
    """Use the configuration of --from without its weights."""
    seed: int = 0
    """Seed of the initialisation of an untrained encoder."""
    clips_per_part: int = 1024
    """Clips per file of intermediate results, from which a stopped run continues."""
    batch_size: int = 32
    """Clips per forward pass of one process."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        for name in ("clips_per_part", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not self.out.endswith((".npz", ".parquet")):
            raise ValueError(f"out {self.out} must end in .npz or .parquet")
        if self.tokens == "joint" and (self.untrained or self.modalities != "both"):
            raise ValueError("tokens joint: needs a trained model and --modalities both; each is encoded alone")
        parse_part(self.part)
        check_address(self.ray)


@dataclass(frozen=True)
class NeighboursConfig:
    """Classify clips by their nearest neighbours among labelled clips, without training."""

    train: str
    """Features of the labelled clips, written by `embed` (.npz)."""
    test: str
    """Features of the clips to classify, from the same encoder."""
    out: str
    """Folder of the results."""
    k: int = 1
    """Number of neighbours that vote."""
    temperature: float = 0.07
    """The weight of a neighbour's vote is exp(similarity / temperature); the similarity is the mean cosine similarity
    of the streams."""
    labels: Literal["single", "multi"] = "single"
    """single: one label per clip; multi: several."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k {self.k} must be at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} must be positive")


@dataclass(frozen=True)
class RetrievalConfig:
    """Score retrieval between images and sounds: how often a clip's image finds its own sound among all clips, and the
    reverse."""

    features: str
    """Features of the clips, written by `embed --tokens joint` (.npz); with --tokens pooled the mean tokens of the
    streams are compared, which have no joint space."""
    out: str
    """Folder of the results."""


@dataclass(frozen=True)
class VggsounderConfig:
    """Score saved predictions of VGGSound's test clips with VGGSounder's labels."""

    annotations: str
    """The official vggsounder.csv."""
    both: str
    """Folder of the evaluation with both modalities."""
    image: str | None = None
    """Folder of the evaluation with --modalities image. VGGSounder's modality confusion needs this and --audio."""
    audio: str | None = None
    """Folder of the evaluation with --modalities audio."""
    head: str = "average"
    """Which logits: average, or those of one head."""
    out: str | None = None
    """JSON file of the scores; by default none."""

    def __post_init__(self) -> None:
        if (self.image is None) != (self.audio is None):
            raise ValueError("image and audio: modality confusion needs the evaluations of both, or give neither")


@dataclass(frozen=True)
class AverageConfig:
    """Combine several evaluated classifiers: the mean of their logits on the clips that all have scored."""

    members: tuple[str, ...]
    """Folders of the evaluations, [A,B,...]."""
    out: str
    """Folder of the results."""
    head: str = "average"
    """Which logits of each: average, or those of one head."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2:
            raise ValueError(f"members {list(self.members)} must name at least two evaluations")
