"""Settings of `serve`. Never imports torch or gradio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepavfusion.inference.predict_config import check_pace


@dataclass(frozen=True)
class ServeConfig:
    """Serve a web page on which trained models can be tried on files: classes, heat maps, separated sounds, masks,
    features."""

    model: str = "shipped:bandstand"
    """A bundle, a finished run, a model folder, shipped:NAME, or hf:OWNER/NAME."""
    index: str | None = None
    """Folder of an index made by `index`: offers a search in it, by the model of the index. Visitors see excerpts of
    its recordings, and their names."""
    index_model: str | None = None
    """Where the model of the index is now, if it was moved."""
    host: str = "127.0.0.1"
    """Address to listen on: the default is reachable only from this machine, 0.0.0.0 from everywhere."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    max_upload_mib: float = 64.0
    """Largest file that is accepted, in MiB."""
    max_seconds: float = 120.0
    """Longest recording that is accepted."""
    max_waiting: int = 16
    """Requests that may wait in the queue; one is computed at a time."""
    keep_minutes: float = 60.0
    """The files of an open tab without requests are deleted after this time; those of a closed tab at once."""
    examples: bool = True
    """Offer clips of Bandstand as examples, generated at the start."""
    hop_seconds: float | None = None
    """Classification, embedding: largest distance from one window to the next; by default half a window."""
    step_seconds: float = 0.1
    """Localization, segmentation: time from one map to the next."""
    batch_size: int = 16
    """Windows or frames per forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        if self.index == "":
            raise ValueError("index is empty: give the folder of an index, or leave it out")
        if self.index_model is not None and self.index is None:
            raise ValueError(f"index_model {self.index_model} is of no use without --index")
        if not self.host:
            raise ValueError("host is missing: 127.0.0.1 for this machine alone, 0.0.0.0 for everywhere")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} must be from 0 to 65535")
        if not 0 < self.max_upload_mib <= 65536:
            raise ValueError(f"max_upload_mib {self.max_upload_mib:g} must be above 0 and at most 65536")
        if not 0 < self.max_seconds <= 12 * 3600:
            raise ValueError(f"max_seconds {self.max_seconds:g} must be above 0 and at most 43200, which is 12 hours")
        if self.max_waiting < 1:
            raise ValueError(f"max_waiting {self.max_waiting} must be at least 1")
        if self.keep_minutes <= 0:
            raise ValueError(f"keep_minutes {self.keep_minutes:g} must be positive")
        check_pace(self.step_seconds, self.hop_seconds, self.batch_size)

    @property
    def max_upload_bytes(self) -> int:
        return round(self.max_upload_mib * 2**20)
