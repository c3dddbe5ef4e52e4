"""Checks the caps of Bandstand's classification splits with strong supervised classifiers of one sense.

A convolutional network sees the pictures of training solos (and how they change), another hears the log-mel
spectrogram; both learn look, timbre and class. On test solos the picture should tell the look and nothing of the
timbre (class at most 1/4), the sound the timbre and nothing of the look (class at most 1/6).

    python scripts/bandstand_caps.py --train 2400 --test 960 --out caps.json

Clips are drawn and played in memory: what a codec adds cannot depend on the other sense.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import sqrt
from typing import Any

import numpy as np

NUM_FRAMES, SIDE, BANDS, HOP = 10, 64, 64, 320
Example = tuple[np.ndarray, np.ndarray, int, int]


def example(seed: int, split: str, index: int) -> Example:
    """Pictures uint8 `3 T H W` (T = 10, 64 x 64), log-mel float16 `F T`, numbers of look and timbre."""
    from deepavfusion.bandstand.scenes import Band
    from deepavfusion.bandstand.sources import LOOK_NAMES, TIMBRE_NAMES
    from deepavfusion.bandstand.stage import Stage

    # As wide as usual and shrunk: small sprites are drawn as coarsely as the network sees them.
    stage = Stage(size=128)
    plan = Band().plan(seed, split, index, stage.seconds)
    # A random phase, so that strokes are seen at all distances from the frames.
    first = index % (stage.num_frames // NUM_FRAMES)
    numbers = range(first, stage.num_frames, stage.num_frames // NUM_FRAMES)
    frames = stage.film(plan.scene, (), numbers).frames[list(numbers)].astype(np.float32)
    small = frames.reshape(NUM_FRAMES, SIDE, 2, SIDE, 2, 3).mean((2, 4)).round().astype(np.uint8).transpose(3, 0, 1, 2)
    source = plan.scene.performers[0].source
    mel = log_mel(stage.record(plan.scene).mixture / 32768.0, stage.sample_rate)
    return small, mel, LOOK_NAMES.index(source.look), TIMBRE_NAMES.index(source.timbre)


def log_mel(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """float16 `BANDS T`: log10 power in triangular bands, even on the HTK mel scale from 0 to half the rate."""
    window = 1024
    starts = np.arange(0, len(wave) - window + 1, HOP)
    power = np.abs(np.fft.rfft(wave[starts[:, None] + np.arange(window)] * np.hanning(window))) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + sample_rate / 1400), BANDS + 2) / 2595) - 1)
    bins = np.arange(power.shape[1]) * sample_rate / window
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None)
    return np.log10(power @ bank.T + 1e-6).T.astype(np.float16)


def examples(seed: int, split: str, count: int, num_workers: int) -> tuple[np.ndarray, ...]:
    """Pictures, log-mels, looks, timbres of the first clips of a split."""
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(partial(example, seed, split), range(count), chunksize=16))
    return tuple(np.stack(column) for column in zip(*found, strict=True))


def network(sense: str) -> Any:
    """A small convolutional network with heads for class (24), look (6) and timbre (4)."""
    import torch
    from torch import nn

    def block(into: int, out: int, kernel: int, stride: tuple[int, int]) -> nn.Sequential:
        conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if sense == "picture":
                strides, into, widths = ((2, 2),) * 4, 3, (16, 32, 64, 96)
            else:
                strides, into, widths = ((1, 2), (2, 2), (2, 2), (2, 2)), 1, (24, 48, 96, 96)
            pairs = zip((into, *widths[:-1]), widths, (5, 3, 3, 3), strides, strict=True)
            self.body = nn.Sequential(*(block(*pair) for pair in pairs))
            # Across frames, place by place: strokes are changes.
            self.change = nn.Conv1d(widths[-1], widths[-1], 3, padding=1)
            self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * widths[-1], 34))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if sense == "picture":
                batch = len(x)
                found = self.body(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, -1))  # B T C H W
                changes = self.change(found.permute(0, 3, 4, 2, 1).flatten(0, 2)).relu()  # (B H W) C T
                found = changes.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)
            else:
                found = self.body(x).flatten(2)
            return self.head(torch.cat([found.mean(2), found.amax(2)], 1))

    return Net()


def train_and_test(
    sense: str, data: tuple[np.ndarray, ...], test: tuple[np.ndarray, ...], epochs: int, report: Callable[[str], None]
) -> dict[str, float]:
    """Accuracies on the test clips: class (24), look (6), timbre (4)."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    model, column = network(sense), 0 if sense == "picture" else 1
    batch, count = 32, len(data[2])
    steps = epochs * (count // batch)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)

    def views(found: tuple[np.ndarray, ...], rows: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(found[column][rows]).float()
        return x / 127.5 - 1 if sense == "picture" else (x[:, None] + 2) / 2

    def targets(found: tuple[np.ndarray, ...], rows: np.ndarray) -> list[torch.Tensor]:
        look, timbre = torch.from_numpy(found[2][rows]), torch.from_numpy(found[3][rows])
        return [look * 4 + timbre, look, timbre]

    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        model.train()
        order, total = rng.permutation(count), 0.0
        for start in range(0, count - batch + 1, batch):
            rows = order[start : start + batch]
            x = views(data, rows)
            if sense == "picture" and rng.random() < 0.5:
                x = x.flip(-1)
            heads = model(x).split([24, 6, 4], 1)
            loss = sum(cross_entropy(head, y) for head, y in zip(heads, targets(data, rows), strict=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * batch / count
        report(f"{sense} epoch {epoch + 1}/{epochs} loss {total:.3f}")
    model.eval()
    right = np.zeros(3)
    with torch.no_grad():
        for start in range(0, len(test[2]), batch):
            rows = np.arange(start, min(start + batch, len(test[2])))
            heads = model(views(test, rows)).split([24, 6, 4], 1)
            right += [int((h.argmax(1) == y).sum()) for h, y in zip(heads, targets(test, rows), strict=True)]
    return dict(zip(("class", "look", "timbre"), (right / len(test[2])).round(4).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=2400, help="training solos")
    parser.add_argument("--test", type=int, default=960, help="test solos")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--out", default="bandstand_caps.json", help="where the result goes")
    args = parser.parse_args()

    from deepavfusion.bandstand.world import WORLD_VERSION

    began = time.monotonic()

    def report(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True)  # noqa: T201

    data, test = (
        examples(args.seed, split, count, args.num_workers)
        for split, count in (("train", args.train), ("test", args.test))
    )
    report(f"{args.train} + {args.test} clips")
    result: dict[str, Any] = {
        "world": WORLD_VERSION,
        "seed": args.seed,
        "train": args.train,
        "test": args.test,
        "epochs": args.epochs,
    }
    passed = True
    for sense, other, cap in (("sound", "look", 1 / 6), ("picture", "timbre", 1 / 4)):
        found = train_and_test(sense, data, test, args.epochs, report)
        # Three standard errors of a binomial at the cap.
        limit = cap + 3 * sqrt(cap * (1 - cap) / args.test)
        passed &= found["class"] <= limit and found[other] <= limit
        result[sense] = {**found, "cap": round(cap, 4), "limit": round(limit, 4)}
        report(f"{sense}: {result[sense]}")
    result["passed"] = passed
    with open(args.out + ".partial", "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    os.replace(args.out + ".partial", args.out)
    if not passed:
        raise SystemExit("a cap is exceeded: one sense tells of the other")


if __name__ == "__main__":
    main()
