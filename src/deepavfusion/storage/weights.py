"""Reading published weights: MAE and AudioMAE as starting points, and the released DeepAVFusion files.

Nothing is unpickled that could run code. Every key of a source is loaded, dropped for a stated reason, or named in an
error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor

from deepavfusion.models.classifier import AudioVisualClassifier
from deepavfusion.models.config import ClassifierConfig, EarlyFusionConfig, MaskedAutoencoderConfig
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.masked_autoencoder import AudioVisualMAE
from deepavfusion.saved_model import strip_prefix
from deepavfusion.storage.model_configs import ReleasedConfig
from deepavfusion.weight_files import UnreadableFile, check_keys, read_safetensors, read_torch_file, summarize

HUB_PREFIX = "hf:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a source."""

    source: str
    loaded: tuple[str, ...]
    """Keys of our model that were filled."""
    dropped: tuple[str, ...] = ()
    """Keys of the source that this model has no use for."""
    reshaped: tuple[str, ...] = field(default=())
    """Keys of our model that were resampled or transposed on the way."""

    def __str__(self) -> str:
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        for verb, names in (("dropped", self.dropped), ("reshaped", self.reshaped)):
            if names:
                text += f"; {verb} {summarize(names)}"
        return text


def read_state_dict(source: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch file, or of `hf:OWNER/NAME[/FILE]` on the Hugging Face hub.

    A torch file is read weights-only; a `state_dict` or `model` entry and a `module.` prefix are unwrapped.

    Raises:
        ValueError: no such file, not a weight file, or a pickle that holds more than tensors.
    """
    path = fetch(str(source)) if str(source).startswith(HUB_PREFIX) else Path(source)
    if not path.is_file():
        raise ValueError(f"{source}: no such weight file")
    try:
        content: Any = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
        state = unwrap(content)
    except UnreadableFile as error:
        raise ValueError(f"{source}: not a readable weight file ({error.cause})") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if not state:
        raise ValueError(f"{source}: holds no tensors")
    return state


def fetch(name: str) -> Path:
    """Download `hf:OWNER/NAME[/FILE]` to the hub cache; without FILE the usual weight file names are tried."""
    owner, _, rest = name.removeprefix(HUB_PREFIX).partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise ValueError(f"{name}: expected hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    for candidate in (file,) if file else HUB_FILES:
        try:
            return Path(hf_hub_download(f"{owner}/{repository}", candidate))
        except LocalEntryNotFoundError as error:
            raise ValueError(f"{name}: the hub cannot be reached and the file is not in its cache") from error
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise ValueError(f"{name}: {error}") from error
    raise ValueError(f"{name}: the repository has none of {', '.join((file,) if file else HUB_FILES)}")


def unwrap(content: Any) -> dict[str, Tensor]:
    """The state dict inside a checkpoint container, without a `module.` prefix."""
    for entry in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    if not isinstance(content, dict):
        raise ValueError(f"expected a dictionary of tensors, found a {type(content).__name__}")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"expected tensors only, found {', '.join(strangers[:5])}")
    return {key.removeprefix("module."): value for key, value in content.items()}


# --- Starting points: MAE and AudioMAE ---------------------------------------------------------------------------

# Parts of the sources that the method does not take over: their class token, decoder and head, and their positions,
# which are replaced by our own sine-cosine tables.
UNUSED = re.compile(r"(cls_token|pos_embed|mask_token|decoder_.*|head\..*|fc_norm\..*)$")


def load_mae(encoder: EarlyFusionEncoder, source: str | Path) -> LoadReport:
    """Start the image ViT from MAE weights (the authors' file, or timm's `hf:timm/vit_base_patch16_224.mae`).

    Raises:
        ValueError: keys are missing, unexpected or of another shape; all are named and nothing is loaded.
    """
    return load_stream(encoder, "image", source, transpose_patches=False)


def load_audiomae(encoder: EarlyFusionEncoder, source: str | Path, transpose_patches: bool = True) -> LoadReport:
    """Start the audio ViT from AudioMAE weights (or timm's `hf:gaunernst/vit_base_patch16_1024_128.audiomae_as2m`).

    Args:
        encoder: the encoder whose audio stream is filled.
        source: local file or hub name.
        transpose_patches: AudioMAE saw (time, frequency) patches, ours are (frequency, time): turn the kernel. The
            released DeepAVFusion weights were trained without turning it.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; all are named and nothing is loaded.
    """
    return load_stream(encoder, "audio", source, transpose_patches)


def load_stream(encoder: EarlyFusionEncoder, modality: str, source: str | Path, transpose_patches: bool) -> LoadReport:
    """Fill one ViT of the encoder; `modality` is `image` or `audio`."""
    state = read_state_dict(source)
    if "norm.weight" not in state and "fc_norm.weight" in state:  # timm's name for the final norm of pooled models
        for name in ("weight", "bias"):
            state[f"norm.{name}"] = state.pop(f"fc_norm.{name}")
    dropped = tuple(key for key in state if UNUSED.match(key))
    ours = {f"{modality}.{key}": value for key, value in state.items() if key not in dropped}
    reshaped: tuple[str, ...] = ()
    if transpose_patches:
        key = f"{modality}.patch_embed.proj.weight"
        if key in ours and ours[key].ndim == 4:
            ours[key] = ours[key].mT.contiguous()
            reshaped = (f"{key} (transposed)",)
    expected = {key: value for key, value in encoder.state_dict().items() if key.startswith(f"{modality}.")}
    del expected[f"{modality}.pos_embed"]
    check_keys(ours, expected, str(source))
    encoder.load_state_dict(ours, strict=False)  # strictness was checked above, for this stream alone
    return LoadReport(str(source), tuple(ours), dropped, reshaped)


# --- The released DeepAVFusion layout ----------------------------------------------------------------------------

RELEASE_IMAGE_GRID = (14, 14)
RELEASE_AUDIO_GRID = (8, 12)
CLASSIFIER_KEY = re.compile(r"(image|audio|fusion)_(head|norm)\.")

# Renamings inside a fusion block, by fusion form. In the released `token` form the two modality norms are swapped.
BLOCK_NAMES = {
    "token": {
        "norm1_mm.": "norm_fusion.",
        "norm1_aud.": "norm_image.",
        "norm1_img.": "norm_audio.",
        "attn.q.": "attn.attn.q.",
        "attn.kv.": "attn.attn.kv.",
        "attn.proj.": "attn.attn.proj.",
    },
    "dense": {
        "norm1_mm.": "norm_fusion.",
        "norm1_aud.": "norm_audio.",
        "norm1_img.": "norm_image.",
        "attn.q.": "attn.pairs.q.",
        "attn.proj.": "attn.proj.",
    },
    "factorized": {
        "norm1_mm.": "norm_fusion.",
        "norm1_aud.": "norm_audio.",
        "norm1_img.": "norm_image.",
        "attn.attn_v.": "attn.aggregate_image.",
        "attn.attn_a.": "attn.aggregate_audio.",
        "attn.q.": "attn.pairs.q.",
        "attn.k.": "attn.pairs.k.",
        "attn.v.": "attn.pairs.v.",
        "attn.proj.": "attn.proj.",
    },
}


def convert_release(state_dict: dict[str, Tensor], config: ReleasedConfig) -> dict[str, Tensor]:
    """Turn the released layout into ours, ready for a strict load.

    Reads the encoder alone (with or without the `encoder.` prefix), the autoencoder and the classifier. With an
    `EarlyFusionConfig` the result is the encoder's and decoders or heads are left out; with a `MaskedAutoencoderConfig`
    it is the whole autoencoder's, with a `ClassifierConfig` the whole classifier's. Position tables of another size are
    resampled. The result is built by differentiable tensor operations on the input.

    Args:
        state_dict: tensors under the release's names, or the container that holds them.
        config: configuration of the model to be filled.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; all are named.
    """
    state, _ = convert_release_with_report(state_dict, config)
    return state


def convert_release_with_report(
    state_dict: dict[str, Tensor], config: ReleasedConfig, source: str = "release"
) -> tuple[dict[str, Tensor], LoadReport]:
    """`convert_release`, and what became of every key."""
    encoder_config = config if isinstance(config, EarlyFusionConfig) else config.encoder
    if encoder_config.fusion not in BLOCK_NAMES:
        raise ValueError(f"the release has no {encoder_config.fusion} fusion; it has {', '.join(BLOCK_NAMES)}")
    state = unwrap(state_dict)
    if not any(key.startswith("encoder.") for key in state):
        state = {f"encoder.{key}": value for key, value in state.items()}
    ours: dict[str, Tensor] = {}
    dropped = []
    for key, value in state.items():
        if key.startswith("encoder.fusion_blocks."):
            ours.update(convert_fusion_key(key, value, encoder_config.fusion))
        elif key.startswith("encoder."):
            ours[key] = value
        elif isinstance(config, MaskedAutoencoderConfig) and (match := re.match(r"(image|audio)_decoder_(.*)", key)):
            ours[f"{match[1]}_decoder.{match[2]}"] = value
        elif isinstance(config, ClassifierConfig) and CLASSIFIER_KEY.match(key):
            ours[key] = value
        elif re.match(r"(image|audio)_decoder_", key) or CLASSIFIER_KEY.match(key):
            dropped.append(key)
        else:
            ours[key] = value  # not ours: named as unexpected below
    with torch.device("meta"):
        if isinstance(config, MaskedAutoencoderConfig):
            expected = AudioVisualMAE(config).state_dict()
        elif isinstance(config, ClassifierConfig):
            expected = AudioVisualClassifier(config).state_dict()
        else:
            expected = {f"encoder.{key}": v for key, v in EarlyFusionEncoder(config).state_dict().items()}
    reshaped = []
    for key in [key for key in ours if key.endswith("pos_embed") and key in expected]:
        if ours[key].shape != expected[key].shape:
            image = ".image." in key or key.startswith("image_")
            grids = (
                (RELEASE_IMAGE_GRID, encoder_config.image_grid)
                if image
                else (RELEASE_AUDIO_GRID, encoder_config.audio_grid)
            )
            ours[key] = resample_positions(ours[key], *grids)
            reshaped.append(f"{key} (resampled)")
    check_keys(ours, expected, source)
    if isinstance(config, EarlyFusionConfig):
        ours = strip_prefix(ours, "encoder.")
    return ours, LoadReport(source, tuple(ours), tuple(dropped), tuple(reshaped))


def convert_fusion_key(key: str, value: Tensor, fusion: str) -> dict[str, Tensor]:
    """Our entries for one released entry of a fusion block."""
    match = re.match(r"(encoder\.fusion_blocks\.\d+\.)(.*)", key)
    if match is None:
        return {key: value}
    block, name = match.groups()
    if fusion == "dense" and name.startswith("attn.kv."):
        keys, values = value.chunk(2)  # packed rows: keys, then values
        if name.endswith("weight"):  # columns: the audio token, then the image token; ours the other way round
            keys, values = (torch.cat(half.chunk(2, dim=1)[::-1], dim=1) for half in (keys, values))
        parameter = name.rsplit(".", 1)[1]
        return {f"{block}attn.pairs.k.{parameter}": keys, f"{block}attn.pairs.v.{parameter}": values}
    for theirs, ours in BLOCK_NAMES[fusion].items():
        if name.startswith(theirs):
            return {block + ours + name[len(theirs) :]: value}
    return {key: value}


def load_release(model: EarlyFusionEncoder | AudioVisualMAE | AudioVisualClassifier, source: str | Path) -> LoadReport:
    """Fill a model from a released DeepAVFusion file.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; all are named and nothing is loaded.
    """
    state, report = convert_release_with_report(read_state_dict(source), model.config, str(source))
    model.load_state_dict(state)
    return report


def resample_positions(positions: Tensor, from_grid: tuple[int, int], to_grid: tuple[int, int]) -> Tensor:
    """Bicubic resampling of a position table over its grid: `(1, N, D)` -> `(1, N', D)`.

    Raises:
        ValueError: the table does not have one row per cell of `from_grid`.
    """
    rows, columns = from_grid
    if positions.shape[1] != rows * columns:
        raise ValueError(f"a position table of {positions.shape[1]} rows is not a {rows} x {columns} grid")
    table = positions.unflatten(1, from_grid).permute(0, 3, 1, 2)
    table = F.interpolate(table.float(), size=to_grid, mode="bicubic", align_corners=False, antialias=True)
    return table.to(positions.dtype).permute(0, 2, 3, 1).flatten(1, 2)
