"""Settings of `index` and `search`. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Senses = Literal["auto", "image", "audio", "both"]
"""What of a query or of an archive is compared."""


@dataclass(frozen=True)
class IndexConfig:
    """Put the windows of recordings as vectors into an index, for `search`; what is there unchanged stays."""

    source: str
    """A folder of videos, sounds and photos (searched recursively), one such file, a manifest, shards, or
    hf:OWNER/NAME[:SPLIT] (docs/data.md)."""
    model: str
    """The model: a finished run, a model folder, a bundle, shipped:NAME, hf:OWNER/NAME, or a file of published weights.
    Pictures and sounds can be compared with each other if it was pre-trained with --alignment.weight."""
    out: str
    """Folder of the index; an index that is there is brought up to date."""
    hop_seconds: float | None = None
    """Largest distance from one window to the next; by default half a window, or what the index was made with."""
    drop_missing: bool = False
    """Drop recordings of the index whose files or clips are gone, of whatever source; what lies at a URL stays."""
    batch_size: int = 16
    """Windows per forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        if self.hop_seconds is not None and self.hop_seconds <= 0:
            raise ValueError(f"hop_seconds {self.hop_seconds} must be positive")
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")


@dataclass(frozen=True)
class SearchConfig:
    """Find the moments of an index that are most similar to a video, a sound or a photo."""

    index: str
    """Folder of the index."""
    query: str
    """A video, a sound or a photo; of a long one the mean of its windows is looked for."""
    k: int = 10
    """How many moments."""
    by: Senses = "auto"
    """What of the query is used; auto is all that it has."""
    within: Senses = "auto"
    """What of the archive it is compared with, in a joint space; auto is both for a query with both, else whichever is
    more similar, image or audio. Without a joint space it is what the query is compared by."""
    per_file: int = 1
    """Moments of one file or clip at most; 0 is any number."""
    exact: bool = False
    """Compare with every vector, also where the index has a quicker way."""
    json: bool = False
    """Print one JSON object instead of a table."""
    model: str | None = None
    """Where the model of the index is now, if it was moved."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k {self.k} must be at least 1")
        if self.per_file < 0:
            raise ValueError(f"per_file {self.per_file} must not be negative")
