"""The smallest task the loop can train: a linear autoencoder of synthetic samples, without any file to decode.

It has what makes a resume hard: dropout (a random generator per step), terms that not every sample has, clips that
fail. Some tests run this module as a program, to send it signals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch, ClipStream, Failure, Sample
from deepavfusion.data.loading import ClipLoader, StepSampler, training_loader
from deepavfusion.data.views import TrainingView
from deepavfusion.models.config import ModelConfig
from deepavfusion.training.intake import Need
from deepavfusion.training.loop import fit
from deepavfusion.training.processes import Processes
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE

WIDTH = 16


@dataclass(frozen=True)
class ToyConfig:
    run_dir: str
    data: DataConfig = field(default_factory=lambda: DataConfig(source="nowhere", num_workers=0))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=4, warmup_epochs=1, blr=0.3))
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch_size=8, log_every=2))

    def without_effect(self) -> list[str]:
        return []

    def to_dict(self) -> dict[str, Any]:
        record = asdict(self)
        record["optim"]["betas"] = list(self.optim.betas)
        for name in ("crop_area", "crop_ratio"):
            record["data"][name] = list(record["data"][name])
        return record


@dataclass(frozen=True)
class ToyModelConfig(ModelConfig):
    width: int = WIDTH
    dropout: float = 0.0


class ToyModel(nn.Module):
    def __init__(self, config: ToyModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encode, self.decode = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.dropout(self.encode(x).tanh()))

    def save_pretrained(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        torch.save(self.state_dict(), directory / "model.pt")


class ToyStream(ClipStream):
    def __init__(self, clips: Sequence[Clip], seed: int, broken: Sequence[str]) -> None:
        super().__init__(clips, TrainingView(), seed)
        self.broken = broken

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng((self.seed, number))
        index = int(
            np.random.default_rng((self.seed, number // len(self.clips))).permutation(len(self.clips))[
                number % len(self.clips)
            ]
        )
        clip = self.clips[index]
        failed = clip.id in self.broken
        waveform = (np.sin(np.arange(WIDTH) * (index + 1)) + 0.1 * rng.standard_normal(WIDTH)).astype(np.float32)
        return Sample(
            number=number,
            clip=clip,
            image=rng.integers(0, 255, (2, 2, 3), dtype=np.uint8),
            waveform=waveform,
            image_present=index % 3 != 0 and not failed,
            audio_present=not failed,
            failure=Failure(clip.id, "made to fail") if failed else None,
        )


class ToyTask:
    kind = "toy"
    needs: Mapping[Need, str] = {"sound": "take other clips"}

    def __init__(
        self,
        config: ToyConfig,
        num_clips: int = 24,
        dropout: float = 0.0,
        broken: Sequence[str] = (),
        bad_step: int = -1,
    ) -> None:
        self.config, self.dropout, self.broken, self.bad_step = config, dropout, broken, bad_step
        self.clips: Sequence[Clip] = [Clip(id=f"clip{i}", path=f"clip{i}.mp4") for i in range(num_clips)]
        self.on_step: Callable[[int], None] | None = None
        self.seen: list[list[int]] = []

    @property
    def summary(self) -> str:
        return f"{len(self.clips)} made-up clips"

    def build_model(self) -> ToyModel:
        return ToyModel(ToyModelConfig(dropout=self.dropout))

    def load_published(self, model: nn.Module, say: Callable[[str], None]) -> None:
        pass

    def measure_tokens(self, model: nn.Module, processes: Processes) -> None:
        pass

    def finished(self, model: nn.Module) -> nn.Module:
        return model

    def ramped(self, model: nn.Module) -> set[str]:
        return set()

    def layer_ids(self, model: nn.Module) -> Mapping[str, int] | None:
        return None

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        return training_loader(
            ToyStream(self.clips, self.config.training.seed, self.broken), sampler, num_workers, device
        )

    def counts(self, batch: Batch) -> dict[str, int]:
        self.seen.append(batch.sample_numbers)
        return {"image": int(batch.image_present.sum()), "audio": int(batch.audio_present.sum())}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        step = batch.sample_numbers[0] // self.config.training.batch_size
        if self.on_step is not None:
            self.on_step(step)
        x = batch.waveform * (float("nan") if step == self.bad_step else 1.0)
        return {"x": x, "image_present": batch.image_present, "audio_present": batch.audio_present}

    def loss_terms(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
        error = (model(inputs["x"]) - inputs["x"]).square().mean(dim=1)
        terms = {}
        for name, value in (("image", error * 2), ("audio", error)):
            present = inputs[f"{name}_present"].float()
            terms[name] = (value * present).sum() / present.sum().clamp_min(1)
        return terms

    def pictures(self, model: nn.Module, device: torch.device) -> dict[str, Any]:
        figure = Figure(figsize=(1, 1))
        return {"toy": figure}

    def probe(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        return {"weight": float(next(model.parameters()).abs().mean())}


def program_config(run_dir: str, workers: int, ema: float = 0) -> ToyConfig:
    """Eight epochs of 24 clips, 24 steps of 8."""
    return ToyConfig(
        run_dir,
        DataConfig(source="nowhere", num_workers=workers),
        OptimConfig(epochs=8, warmup_epochs=1, blr=0.3),
        TrainingConfig(batch_size=8, log_every=1, checkpoint_every=6, ema=ema),
    )


def main(run_dir: str, workers: str, pause: str, dropout: str, ema: str = "0") -> int:
    """`python -m tests.training.toy_task RUN_DIR NUM_WORKERS SECONDS_PER_STEP DROPOUT [EMA]`."""
    config = program_config(run_dir, int(workers), float(ema))
    task = ToyTask(config, dropout=float(dropout))
    task.on_step = lambda step: time.sleep(float(pause))
    return PREEMPTED_EXIT_CODE if fit(task, config).status == "preempted" else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
