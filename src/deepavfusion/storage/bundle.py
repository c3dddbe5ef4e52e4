"""A bundle: one folder with the trained heads of several tasks and each encoder that they stand on, once.

    bundle.json                    format version, encoders by digest, heads: model, configuration, encoder, files
    config.json, model.safetensors the base encoder, as any saved model: a bundle serves as `--from` of further training
    encoder_DIGEST.safetensors     other encoders, of heads that changed theirs
    TASK.safetensors               what a head has beside its encoder
    README.md                      the model card

All files lie flat in the folder. Tensors are loaded from safetensors files, so that loading runs no code. An encoder is
known by a digest of its tensors as they are stored; a head says which digest it needs, and a folder whose files do not
have the digests it states is refused. The positions of picture patches are left out of the digest: heads that look at
pictures of another size share their encoder, and keep their own positions with the head.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deepavfusion import models
from deepavfusion.atomic import write_text
from deepavfusion.models.classifier import AudioVisualClassifier
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.localizer import Localizer
from deepavfusion.models.no_numbers import NoNumbersError
from deepavfusion.models.segmenter import Segmenter
from deepavfusion.models.separator import Separator
from deepavfusion.models.tasks import TASK_MODELS
from deepavfusion.saved_model import strip_prefix
from deepavfusion.storage.bundle_config import BundleConfig
from deepavfusion.storage.model_card import CardPart, ModelCard, recipe_of, write_card
from deepavfusion.storage.model_configs import CONFIG_CLASSES, read_model_config
from deepavfusion.storage.starting_point import encoder_config, load_encoder
from deepavfusion.storage.starting_point import model_folder as find_model_folder
from deepavfusion.version import __version__
from deepavfusion.weight_files import UnreadableFile, fill, one_line, read_json_object, read_safetensors

FORMAT_VERSION = 1
BUNDLE = "bundle.json"
TaskModel = AudioVisualClassifier | Localizer | Separator | Segmenter
MODEL_CLASSES: dict[str, type[TaskModel]] = {task: getattr(models, name) for task, name in TASK_MODELS.items()}
_POSITIONS = ("image.pos_embed", "audio.pos_embed")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Head:
    """One head of a bundle, as bundle.json tells of it."""

    model: str
    """Class name."""
    model_config: dict[str, Any]
    encoder: str
    """Digest of the encoder that it was trained on."""
    file: str


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Nothing but bundle.json is read before a model is asked for."""

    folder: Path
    base: str
    """Digest of the base encoder."""
    encoders: Mapping[str, str]
    """Files by digest."""
    heads: Mapping[str, Head]
    """By task."""

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read bundle.json.

        Raises:
            ValueError: none there, damaged, or of a newer format.
        """
        path = Path(folder) / BUNDLE
        try:
            record = read_json_object(path)
            version = int(record["format_version"])
            if version > FORMAT_VERSION:
                raise ValueError(
                    f"format version {version} is newer than this package's {FORMAT_VERSION}; update deepavfusion"
                )
            heads = {task: Head(**head) for task, head in record["heads"].items()}
            bundle = cls(Path(folder), record["encoder"], dict(record["encoders"]), heads)
            bundle._check()
        except UnreadableFile as error:
            raise ValueError(f"{path}: {error.cause}") from error
        except KeyError as error:
            raise ValueError(f"{path}: lacks {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        return bundle

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that there are heads for."""
        return tuple(task for task in TASK_MODELS if task in self.heads)

    def load(self, task: str) -> TaskModel:
        """The model of a task, in evaluation mode on the CPU, float32.

        Raises:
            ValueError: no such head, or files that are damaged or belong to another bundle.
        """
        if task not in self.heads:
            raise ValueError(lacking(str(self.folder), task, self.tasks))
        head = self.heads[task]
        try:
            model = MODEL_CLASSES[task](CONFIG_CLASSES[head.model].from_dict(head.model_config))  # type: ignore[arg-type]
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{self.folder / BUNDLE}: {task}: {one_line(error)}") from error
        encoder = {f"encoder.{name}": value for name, value in self._encoder_state(head.encoder).items()}
        own = read_safetensors(self.folder / head.file)
        fill(model, encoder | own, f"{self.folder / head.file}")
        return model.eval()

    def load_encoder(self) -> EarlyFusionEncoder:
        """The base encoder, in evaluation mode on the CPU, float32.

        Raises:
            ValueError: files that are damaged or belong to another bundle.
        """
        name, config = read_model_config(self.folder / "config.json")
        if not isinstance(config, EarlyFusionConfig):
            raise ValueError(f"{self.folder / 'config.json'} describes an {name}, not the bundle's encoder")
        encoder = EarlyFusionEncoder(config)
        fill(encoder, self._encoder_state(self.base), self.folder / self.encoders[self.base])
        return encoder.eval()

    @staticmethod
    def save(
        folder: str | Path,
        models: Mapping[str, TaskModel | str | Path],
        card: ModelCard | None = None,
        *,
        encoder: EarlyFusionEncoder | str | Path | None = None,
        float16: bool = False,
    ) -> Bundle:
        """Write a bundle; the folder appears complete or not at all.

        Args:
            folder: is made; a bundle that is there is replaced, anything else is refused.
            models: by task a model, a finished run, or a model folder.
            card: what the model card says.
            encoder: the base encoder; default: the one that most heads stand on.
            float16: store matrices in half precision; vectors (norms, biases, statistics) stay as they are.

        Raises:
            ValueError: nothing to save, a model of another task, a folder that is no bundle, or a weight that half
                precision cannot hold.
        """
        loaded, recipes = {}, {}
        for task in sorted(models, key=_order):
            loaded[task], recipes[task] = _model_of(task, models[task])
        base = encoder if isinstance(encoder, EarlyFusionEncoder) or encoder is None else encoder_at(str(encoder))
        if not loaded and base is None:
            raise ValueError(f"{folder}: nothing to save: give a model of {', '.join(TASK_MODELS)}, or an encoder")
        target = Path(os.path.abspath(folder))
        if target.exists() and not (target / BUNDLE).is_file() and (not target.is_dir() or any(target.iterdir())):
            raise ValueError(f"{folder}: contains something that is not a bundle; give another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        replaced = target.with_name(f".{target.name}.{os.getpid()}.replaced")
        try:
            partial.mkdir()
            _write(partial, loaded, recipes, base, card or ModelCard(), float16)
            if target.exists():
                os.replace(target, replaced)
            os.replace(partial, target)
        finally:
            if replaced.exists() and not target.exists():
                os.replace(replaced, target)
            for rest in (partial, replaced):
                shutil.rmtree(rest, ignore_errors=True)
        return Bundle.open(target)

    def _check(self) -> None:
        for task, head in self.heads.items():
            if task not in MODEL_CLASSES or head.model != MODEL_CLASSES[task].__name__:
                raise ValueError(f"a head {head.model} for {task} is not known to this version; update deepavfusion")
            if head.encoder not in self.encoders:
                raise ValueError(f"the head for {task} needs the encoder {head.encoder}, which is missing")
        if self.base not in self.encoders:
            raise ValueError(f"the base encoder {self.base} is missing")
        for name in [*self.encoders.values(), *(head.file for head in self.heads.values())]:
            if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):  # a downloaded bundle is not trusted
                raise ValueError(f"the file name {name!r} is not a plain name in this folder")

    def _encoder_state(self, digest: str) -> dict[str, Tensor]:
        path = self.folder / self.encoders[digest]
        state = read_safetensors(path)
        found = digest_state(state)
        if found != digest:
            raise ValueError(f"{path} holds the encoder {found}, not {digest}: the files do not belong together")
        return state


def bundle(config: BundleConfig) -> Bundle:
    """`deepavfusion bundle`: write a bundle from finished runs. Arguments and errors as of `Bundle.save`."""
    card = ModelCard(config.name, config.summary, config.data, config.licence, config.results)
    return Bundle.save(config.out, config.places, card, encoder=config.encoder, float16=config.float16)


def digest_state(state: Mapping[str, Tensor]) -> str:
    """A hash of an encoder's tensors but for its positions: BLAKE2b of 8 bytes, hexadecimal."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(state.items()):
        if name not in _POSITIONS:
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def lacking(place: str, task: str, tasks: tuple[str, ...]) -> str:
    """The message that a model has no head for a task."""
    return f"{place} has no head for {task}; it has {', '.join(tasks) or 'an encoder alone, for embedding'}"


def encoder_at(place: str) -> EarlyFusionEncoder:
    """The encoder of any place of trained weights. Raises ValueError if there are none."""
    encoder = EarlyFusionEncoder(encoder_config(place))
    load_encoder(encoder, place)
    return encoder.eval()


def _write(
    folder: Path,
    models: Mapping[str, TaskModel],
    recipes: Mapping[str, Mapping[str, Any]],
    base: EarlyFusionEncoder | None,
    card: ModelCard,
    float16: bool,
) -> None:
    states = {task: _stored(model, float16) for task, model in models.items()}
    encoders = {task: strip_prefix(state, "encoder.") for task, state in states.items()}
    digests = {task: digest_state(state) for task, state in encoders.items()}
    if base is None:
        chosen = Counter(digests.values()).most_common(1)[0][0]
        task = next(task for task, digest in digests.items() if digest == chosen)
        base_state, base_config = encoders[task], models[task].config.encoder
    else:
        base_state, base_config = _stored(base, float16), base.config
    base_digest = digest_state(base_state)
    kept = {base_digest: base_state}
    for task, digest in digests.items():
        kept.setdefault(digest, encoders[task])
    files = {d: "model.safetensors" if d == base_digest else f"encoder_{d}.safetensors" for d in kept}
    # Written as any model is, by its own code; then the weights as they are stored here, and the card of the whole.
    EarlyFusionEncoder(replace(base_config.with_own_frames(), drop_path=0.0)).save_pretrained(folder)
    for digest, state in kept.items():
        save_file(state, folder / files[digest], metadata={"format": "pt"})
    heads, parts = {}, []
    for task, model in models.items():
        shared = kept[digests[task]]
        own = {name: value for name, value in states[task].items() if not name.startswith("encoder.")}
        own |= {
            f"encoder.{name}": encoders[task][name]
            for name in _POSITIONS
            if not _same(encoders[task][name], shared[name])
        }
        save_file(own, folder / f"{task}.safetensors", metadata={"format": "pt"})
        name = type(model).__name__
        config = model.config.record()
        heads[task] = Head(name, config, digests[task], f"{task}.safetensors")
        count = sum(p.numel() for p in model.parameters())
        classes = tuple(config.get("classes", ()))
        parts.append(CardPart(task, name, digests[task], count, classes, recipes[task]))
    record = {
        "format_version": FORMAT_VERSION,
        "deepavfusion_version": __version__,
        "licence": card.licence,
        "dtype": "float16" if float16 else "float32",
        "encoder": base_digest,
        "encoders": files,
        "heads": {task: asdict(head) for task, head in heads.items()},
    }
    write_text(folder / "README.md", write_card(card, parts, __version__))
    write_text(folder / BUNDLE, json.dumps(record, indent=1) + "\n")


def _stored(model: nn.Module, float16: bool) -> dict[str, Tensor]:
    """A state dict as it is written: contiguous, on the CPU, matrices halved if wanted, positions never."""
    state = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous().clone()
        if value.is_floating_point() and not value.isfinite().all():
            raise NoNumbersError(f": {name} of {type(model).__name__} holds none")
        if float16 and value.ndim >= 2 and value.is_floating_point() and not name.endswith(_POSITIONS):
            half = value.half()
            if not half.isfinite().all():
                raise ValueError(f"{name} holds values that half precision cannot hold; save without float16")
            value = half
        state[name] = value
    return state


def _model_of(task: str, model: TaskModel | str | Path) -> tuple[TaskModel, dict[str, Any]]:
    """A task's model, and the settings of the run that it comes from."""
    if task not in MODEL_CLASSES:
        raise ValueError(f"{task!r} is not a task; there are {', '.join(TASK_MODELS)}")
    wanted = MODEL_CLASSES[task]
    if isinstance(model, nn.Module):
        if not isinstance(model, wanted):
            raise ValueError(f"{task} needs a model of class {wanted.__name__}, not {type(model).__name__}")
        return model, {}
    folder = find_model_folder(str(model))
    name, _ = read_model_config(folder / "config.json")
    if name != wanted.__name__:
        raise ValueError(f"{model}: holds {name}; {task} needs {wanted.__name__}")
    return wanted.from_pretrained(folder), recipe_of(Path(model))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _order(task: str) -> int:
    names = list(TASK_MODELS)
    return names.index(task) if task in names else len(names)
