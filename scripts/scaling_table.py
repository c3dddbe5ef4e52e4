"""Write docs/results/scaling.json: what `deepavfusion estimate` says of three sizes on 1 to 64 GPUs.

    python scripts/scaling_table.py [--json FILE]

Nothing here is measured: it is the arithmetic of `estimate`, whose memory docs/scaling.md holds against measurements.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from deepavfusion.atomic import write_text
from deepavfusion.bench.estimate import estimate, record
from deepavfusion.bench.estimate_config import EstimateConfig
from deepavfusion.configuration import OptimConfig, TrainingConfig
from deepavfusion.models.config import EarlyFusionConfig

SIZES = {"ViT-B": (768, 12, 12), "ViT-L": (1024, 24, 16), "ViT-H": (1280, 32, 16)}
"""Width, depth and heads of the encoder; the decoders are the paper's."""
CLIPS_PER_GPU = 64
CLIPS, EPOCHS = 180_000, 200
"""Of the paper's VGGSound run."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parents[1] / "docs" / "results" / "scaling.json")
    path, rows = parser.parse_args().json, []
    with Console(stderr=True).status("counting") as status:
        for name, (width, depth, heads) in SIZES.items():
            for gpus, strategy in ((1, "ddp"), (8, "ddp"), (8, "fsdp"), (64, "ddp"), (64, "fsdp")):
                status.update(f"{name} on {gpus} by {strategy}")
                config = EstimateConfig(
                    model=EarlyFusionConfig(embed_dim=width, depth=depth, num_heads=heads),
                    optim=OptimConfig(epochs=EPOCHS),
                    training=TrainingConfig(
                        batch_size=CLIPS_PER_GPU * gpus,
                        precision="bfloat16",
                        strategy=strategy,  # type: ignore[arg-type]
                    ),
                    clips=CLIPS,
                    gpus=gpus,
                    gpu="h100",
                )
                rows.append({"size": name, **record(estimate(config))})
    write_text(path, json.dumps({"clips": CLIPS, "epochs": EPOCHS, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
