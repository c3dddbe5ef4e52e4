"""The pre-trained encoders, kept by configuration and seed and reused by every task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.steps import AnyStep, Step, options
from experiments.worlds import Worlds

SEEDS = (0, 1, 2)
SHIPPED = Path(__file__).resolve().parents[1] / "src" / "deepavfusion" / "shipped" / "bandstand"
"""The bundle in the package."""


@dataclass(frozen=True)
class Kind:
    """What an encoder is."""

    folder: str
    fusion_layers: str
    """`all`, or `none`: two separate encoders."""
    settings: dict[str, object] = field(default_factory=dict)
    """What differs from the recipe."""
    digits_alone: bool = False
    """It has seen digits and nothing else."""
    world: str | None = None
    """The only world whose clips it has seen; None for all that the corpus has."""
    seeds: tuple[int, ...] = SEEDS
    """Seeds that it is pre-trained with."""
    recipe: str = "reconstruction"
    """`stage`: it has seen all three casts; `bandstand`: as `ALIGNED`, with convolutional patch embeddings."""
    start: str | None = None
    """The encoder that it starts from, by its name here."""


DRAWS = {"optim.epochs": 28, "optim.warmup_epochs": 1.4}
"""100,800 draws of 3,600 digits clips, none of them mirrored: a mirrored digit is none."""
ALIGNED: dict[str, object] = {
    "alignment.weight": 1,
    "autoencoder.weight": 0,
    "autoencoder.image_mask_ratio": 0.5,
    "autoencoder.audio_mask_ratio": 0.5,
    "data.colour": 0.4,
    "data.noise": 0.05,
    "data.crop_area": "[0.35,1]",
    "optim.blr": 4e-3,
    "optim.epochs": 24,
    "training.batch_size": 64,
    "training.precision": "bfloat16",
}
"""Alignment of two moments in place of the reconstruction: 99,600 draws of `band_few`."""
FUSED = Kind(
    "fused",
    "all",
    {"alignment.together": "fusion", "optim.epochs": 10},
    world="band_few",
    recipe="bandstand",
    start="convolved_separate",
)
STAGE_SEPARATE = Kind(
    "stage_none", "none", {"alignment.alone_share": 0, "optim.epochs": 6}, seeds=SEEDS[:1], recipe="stage"
)
KINDS = {
    "early": Kind("all", "all"),
    "separate": Kind("none", "none"),
    "aligned": Kind("aligned", "all", ALIGNED, world="band_few"),
    "aligned_separate": Kind("aligned_none", "none", ALIGNED, world="band_few"),
    "convolved": Kind("convolved", "all", {"alignment.alone_share": 0}, world="band_few", recipe="bandstand"),
    "alone": Kind("alone", "all", world="band_few", recipe="bandstand"),
    "convolved_separate": Kind(
        "convolved_none", "none", {"alignment.alone_share": 0}, world="band_few", recipe="bandstand"
    ),
    "fused": FUSED,
    **{
        f"fused_{form}": replace(
            FUSED,
            folder=f"fused_{form}",
            settings={**FUSED.settings, "model.fusion": form},
            seeds=SEEDS[:1] if form == "bilinear" else SEEDS,
        )
        for form in ("token", "dense", "bilinear")
    },
    "longer_separate": Kind(
        "longer_none",
        "none",
        {"alignment.alone_share": 0, "optim.epochs": 10},
        world="band_few",
        recipe="bandstand",
        start="convolved_separate",
    ),
    "digits": Kind("digits", "all", {**DRAWS, "data.flip": 0}, digits_alone=True, seeds=SEEDS[:1]),
    "stage_separate": STAGE_SEPARATE,
    "stage_fused": Kind(
        "stage_fused",
        "all",
        {"alignment.together": "fusion", "optim.epochs": 2, "model.fusion": "dense"},
        seeds=STAGE_SEPARATE.seeds,
        recipe="stage",
        start="stage_separate",
    ),
    "stage_longer": replace(
        STAGE_SEPARATE,
        folder="stage_longer",
        settings={**STAGE_SEPARATE.settings, "optim.epochs": 2},
        start="stage_separate",
    ),
}
TAUGHT = "taught"
"""The digits encoder after a classifier learned on it which digits are seen and which are heard (first seed)."""
TEACHING: dict[str, object] = {
    "labels": "multi",
    "data.flip": 0,
    "data.crop_area": "[0.77,1]",
    "optim.blr": 3.2e-2,
    "optim.layer_decay": 0.9,
    "optim.epochs": 14,
    "optim.warmup_epochs": 0.5,
    "augmentation.mixup": 0,
    "augmentation.drop_path": 0,
    "augmentation.label_smoothing": 0,
    "training.batch_size": 8,
    "training.probe_every": 0,
    "training.checkpoint_every": 500,
    "data.num_workers": 0,
}


@dataclass(frozen=True)
class Encoders:
    """Where the encoders lie, and the steps that make them."""

    root: Path
    worlds: Worlds

    def can_be(self, kind: str) -> bool:
        """Whether there are clips of the casts that an encoder has seen."""
        own = KINDS[kind]
        return not ((own.digits_alone and not self.worlds.digits) or (own.recipe == "stage" and not self.worlds.stamps))

    def place(self, kind: str, seed: int) -> Path:
        """Run folder of an encoder: `early`, `separate`, `digits` or `taught`."""
        return self.root / f"{TAUGHT if kind == TAUGHT else KINDS[kind].folder}-{seed}"

    def model(self, kind: str, seed: int) -> Path:
        return self.place(kind, seed) / "model"

    def start(self, kind: str, seed: int = SEEDS[0]) -> tuple[str, Path]:
        """The encoder that a task starts from: what `--from` is given, and the file or folder it needs."""
        return str(self.place(kind, seed)), self.model(kind, seed)

    def embedding(self, kind: str, seed: int, clips: Path, out: Path, *more: str) -> Step:
        """The step that writes an encoder's features of clips; `more` are further words of the command."""
        encoder, model = self.start(kind, seed)
        words = ("embed", "--from", encoder, "--data.source", str(clips), "--data.split", "all")
        return Step(
            (*words, "--data.num_workers", "0", "--out", str(out), *more), out, (model, self.worlds.made(clips))
        )

    def words(self, kind: str, seed: int, run: Path) -> list[str]:
        """The command that pre-trains an encoder in a folder."""
        own = KINDS[kind]
        words = ["pretrain", "--config", own.recipe, "--data.source", str(self._corpus(kind))]
        words += ["--model.fusion_layers", own.fusion_layers, "--run_dir", str(run), *options(own.settings)]
        words += [] if own.start is None else ["--init.encoder", str(self.place(own.start, seed))]
        return [*words, "--training.seed", str(seed), "--data.num_workers", "1"]

    def step(self, kind: str, seed: int) -> AnyStep:
        words = tuple(self.words(kind, seed, self.place(kind, seed)))
        start = KINDS[kind].start
        needs = [] if start is None else [self.model(start, seed)]
        return Step(words, self.model(kind, seed), (self.worlds.made(self._corpus(kind)), *needs))

    def _teaching(self) -> AnyStep:
        run, clips = self.place(TAUGHT, SEEDS[0]), self.worlds.named_digits
        words = ["train", "classification", "--recipe", "finetune", "--from", str(self.place("digits", SEEDS[0]))]
        words += ["--run_dir", str(run), "--data.source", str(clips), *options(TEACHING)]
        return Step(tuple(words), run / "model", (self.model("digits", SEEDS[0]), clips))

    def _corpus(self, kind: str) -> Path:
        if KINDS[kind].recipe == "stage":
            return self.worlds.stage
        world = "digits" if KINDS[kind].digits_alone else KINDS[kind].world
        return self.worlds.shards(world, "pretrain") if world else self.worlds.corpus

    def steps(self) -> list[AnyStep]:
        """All encoders."""
        kinds = {name: kind for name, kind in KINDS.items() if self.can_be(name)}
        steps = [self.step(name, seed) for name, kind in kinds.items() for seed in kind.seeds]
        return steps + ([self._teaching()] if "digits" in kinds else [])
