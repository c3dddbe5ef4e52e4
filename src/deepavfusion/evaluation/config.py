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
    """Which clips are evaluated."""

    source: str
    """A folder of video files, a manifest, or shards."""
    split: str = "test"
    """The split to take, or all; of a source without splits, test is all."""
    num_workers: int = 2
    """Processes that read clips; 0 reads in this process."""

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")


@dataclass(frozen=True)
class EvaluationConfig:
    """What every evaluation of a trained model is told."""

    run: str
    """A finished run, a model folder, a bundle, shipped:NAME, or hf:OWNER/NAME."""
    data: EvaluationData
    """Which clips."""
    out: str | None = None
    """Folder of the results; default: evaluation/ in the run, one folder per source and protocol."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Other runs on the same clips, [NAME=RUN,...]."""
    batch_size: int = field(default=32, kw_only=True)
    """Clips per forward pass of one process."""
    precision: Literal["auto", "float32", "bfloat16"] = field(default="auto", kw_only=True)
    """Arithmetic of the forward pass; auto is bfloat16 on CUDA and float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", kw_only=True)
    """Where to compute; auto takes CUDA if there is one."""

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
    """Windows per clip whose logits are averaged; 1 is the centre."""
    modalities: Modalities = "both"
    """Look at both, or drop one at test time: image or audio alone."""
    features: str | None = None
    """Score what `embed` wrote with this run's encoder, instead of reading clips."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Earlier evaluations to compare with clip by clip, [NAME=FOLDER,...]."""
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
    """Difference of two evaluations on the clips that both scored, with a paired bootstrap interval."""

    a: str
    """Folder of an evaluation; several seeds of one model separated by commas."""
    b: str
    """The same of the other model; the seeds belong together in the order given."""
    metric: str = "auto"
    """What is compared: top1, mean_ap or hit_at_1 of classifiers, else a score of samples.npz; auto is top1 for one
    label per clip, mean_ap for several, and the first score of other tasks."""
    head: str = "average"
    """Which of a classifier's logits: average, or one head's."""
    confidence: float = 0.95
    """Coverage of the interval."""
    num_resamples: int = 10_000
    """Bootstrap resamples; mean_ap costs far more per resample than the others."""
    paired_seeds: bool = True
    """Whether A's and B's seeds belong together (same encoder, same order of clips)."""
    out: str | None = None
    """JSON file for the result; none by default."""


@dataclass(frozen=True)
class EmbedConfig:
    """Write an encoder's features of clips."""

    from_: str
    """The encoder: a finished run, a model folder, hf:OWNER/NAME, or a file of published weights."""
    data: EvaluationData
    """Which clips."""
    out: str
    """The file to write: .npz or .parquet (needs pyarrow)."""
    part: str = "1/1"
    """Embed one part of the clips only, such as 3/8; run without it afterwards to join the parts."""
    ray: str | None = None
    """Work on a Ray cluster: auto, local, host:port or ray://host:port (docs/scaling.md)."""
    tokens: Literal["pooled", "all"] = "pooled"
    """The mean token of every stream, or all tokens."""
    modalities: Modalities = "both"
    """Show the encoder both, or image or audio alone."""
    untrained: bool = False
    """Take the configuration of --from without its weights."""
    seed: int = 0
    """Initialisation of an untrained encoder."""
    clips_per_part: int = 1024
    """Clips between two files of intermediate results, from which a stopped run continues."""
    batch_size: int = 32
    """Clips per forward pass of one process."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 on CUDA and float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is one."""

    def __post_init__(self) -> None:
        for name in ("clips_per_part", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not self.out.endswith((".npz", ".parquet")):
            raise ValueError(f"out {self.out} must end in .npz or .parquet")
        parse_part(self.part)
        check_address(self.ray)


@dataclass(frozen=True)
class NeighboursConfig:
    """Classify clips by their nearest neighbours among labelled ones, without any training."""

    train: str
    """Features of the labelled clips, written by `embed` (.npz)."""
    test: str
    """Features of the clips to classify, of the same encoder."""
    out: str
    """Folder of the results."""
    k: int = 1
    """Neighbours that vote."""
    temperature: float = 0.07
    """A neighbour's vote is exp(similarity / temperature), similarity being the mean cosine over the streams."""
    labels: Literal["single", "multi"] = "single"
    """One label per clip, or several."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k {self.k} must be at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} must be positive")


@dataclass(frozen=True)
class VggsounderConfig:
    """Score saved predictions of VGGSound's test clips against VGGSounder's labels."""

    annotations: str
    """The official vggsounder.csv."""
    both: str
    """Folder of the evaluation with picture and sound."""
    image: str | None = None
    """Folder of the evaluation with --modalities image; with both alone for the modality confusion."""
    audio: str | None = None
    """Folder of the evaluation with --modalities audio."""
    head: str = "average"
    """Which logits: average, or one head's."""
    out: str | None = None
    """JSON file for the scores; none by default."""

    def __post_init__(self) -> None:
        if (self.image is None) != (self.audio is None):
            raise ValueError("image and audio: modality confusion needs the evaluations of both, or give neither")


@dataclass(frozen=True)
class AverageConfig:
    """Several evaluated classifiers as one: the mean of their logits on the clips that all scored."""

    members: tuple[str, ...]
    """Folders of the evaluations, [A,B,...]."""
    out: str
    """Folder of the results."""
    head: str = "average"
    """Which logits of each: average, or one head's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2:
            raise ValueError(f"members {list(self.members)} must name at least two evaluations")
