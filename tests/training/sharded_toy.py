"""The toy task with transformer blocks, which sharding divides; run by torchrun in the tests.

    python -m tests.training.sharded_toy RUN_DIR STRATEGY STOP_STEP PRECISION [EMA]

Stops itself in the step STOP_STEP (-1: never). The first process writes, beside the run folder, which samples each
process drew (`RUN_DIR.seen.json`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deepavfusion.models.vit import Block
from deepavfusion.training.loop import fit
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE
from tests.training.toy_task import WIDTH, ToyConfig, ToyModel, ToyModelConfig, ToyTask, program_config


class BlockModel(ToyModel):
    """A sample as 2 tokens of width 8 through two blocks, with a vector and a one-row parameter outside them."""

    def __init__(self, config: ToyModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(8, 2, mlp_ratio=2.0) for _ in range(2))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.register_buffer("fixed", torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encode(x).view(-1, 2, 8) + self.token
        for block in self.blocks:
            tokens = block(tokens)
        return self.decode(self.dropout(tokens.flatten(1)))


class BlockTask(ToyTask):
    """With rates that fall with depth."""

    def build_model(self) -> BlockModel:
        return BlockModel(ToyModelConfig(width=WIDTH, dropout=self.dropout))

    def layer_ids(self, model: nn.Module) -> Mapping[str, int]:
        return {
            name: int(name.split(".")[1]) + 1 if "blocks." in name else 0 if "encode" in name else 3
            for name, _ in model.named_parameters()
        }


def block_config(run_dir: str, strategy: str, precision: str = "float32", ema: float = 0) -> ToyConfig:
    """24 steps of 8 in two accumulations, clipped, with layer decay."""
    config = program_config(run_dir, 0, ema)
    return replace(
        config,
        optim=replace(config.optim, blr=0.1, clip_grad=0.5, layer_decay=0.8),
        training=replace(
            config.training, accumulation=2, strategy=strategy, device="cpu", precision=precision, probe_every=1
        ),
    )


def main(run_dir: str, strategy: str, stop: str, precision: str, ema: str = "0") -> int:
    config = block_config(run_dir, strategy, precision, float(ema))
    task = BlockTask(config)
    task.on_step = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == int(stop) else None
    status = fit(task, config).status
    path = Path(f"{run_dir}.seen.{os.environ.get('RANK', '0')}.json")
    path.write_text(json.dumps(task.seen))
    return PREEMPTED_EXIT_CODE if status == "preempted" else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
