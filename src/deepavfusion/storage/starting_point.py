"""`--from`: the encoder of a downstream task, from a run, a saved model, the hub, or a file of published weights.

A place is read twice: first its configuration, so that the model can be built, then its weights.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from deepavfusion.models.config import EarlyFusionConfig, FusionForm
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.storage.model_configs import read_model_config
from deepavfusion.storage.weights import (
    HUB_PREFIX,
    RELEASE_AUDIO_GRID,
    RELEASE_IMAGE_GRID,
    convert_release_with_report,
    read_state_dict,
)
from deepavfusion.weight_files import check_keys, fill

SHIPPED_PREFIX = "shipped:"
SHIPPED = Path(__file__).parents[1] / "shipped"
"""Folder of the models that come with the package."""
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def encoder_config(place: str) -> EarlyFusionConfig:
    """The configuration of the encoder at a place, as it is by itself: frames that it does not read are left out.

    Args:
        place: a finished run, a model folder or its `config.json`, `shipped:NAME` of a model that comes with the
            package, `hf:OWNER/NAME` of a model saved by this package, or a file of the published DeepAVFusion weights.

    Raises:
        ValueError: nothing of these is there; names the place and the fix.
    """
    if place.startswith(HUB_PREFIX):
        return _from_hub(place).config.with_own_frames()
    path = Path(place)
    if path.suffix == ".json":
        if not path.is_file():
            raise ValueError(f"{place}: no such model configuration")
        return _encoder_of(path)
    if path.suffix in WEIGHT_SUFFIXES:
        return release_config(read_state_dict(path), place)
    return _encoder_of(model_folder(place) / "config.json")


def load_encoder(encoder: EarlyFusionEncoder, place: str) -> str:
    """Fill an encoder, whose drop path alone may differ from `encoder_config(place)`; says from what.

    Raises:
        ValueError: as `encoder_config`, or the weights do not fit.
    """
    if place.startswith(HUB_PREFIX):
        source, name = _from_hub(place), place
    elif Path(place).suffix in WEIGHT_SUFFIXES:
        state, report = convert_release_with_report(read_state_dict(place), encoder.config, place)
        encoder.load_state_dict(state)
        return str(report)
    elif Path(place).suffix == ".json":
        raise ValueError(f"{place}: a configuration has no weights; it can only be used with --untrained true")
    else:
        folder = model_folder(place)
        source, name = EarlyFusionEncoder.from_pretrained(folder), str(folder)
    fill(encoder, source.state_dict(), name)
    return f"{name}: {len(source.state_dict())} tensors loaded"


def load_streams(encoder: EarlyFusionEncoder, place: str) -> str:
    """Fill an encoder to be trained on; where either has no fusion at all, the two ViTs alone. Says from what.

    Raises:
        ValueError: as `load_encoder`, or a size differs; names what does not fit, and nothing is loaded.
    """
    source = EarlyFusionEncoder(encoder_config(place))
    load_encoder(source, place)
    state = source.state_dict()
    if bool(source.config.fused) == bool(encoder.config.fused):
        fill(encoder, state, place)
        return f"{place}: {len(state)} tensors loaded"
    vits, own = (
        {key: value for key, value in every.items() if key.startswith(("image.", "audio."))}
        for every in (state, encoder.state_dict())
    )
    check_keys(vits, own, place)
    encoder.load_state_dict(vits, strict=False)  # strictness was checked above, for the ViTs alone
    fate = "starts at random" if encoder.config.fused else "is left out"
    return f"{place}: {len(vits)} tensors of two ViTs loaded; fusion {fate}"


def load_resized(encoder: EarlyFusionEncoder, place: str) -> str:
    """Fill an encoder from a place, whatever the picture size there; its own positions stay. Says from what.

    Raises:
        ValueError: as `load_encoder`.
    """
    source = EarlyFusionEncoder(encoder_config(place))
    told = load_encoder(source, place)
    state = source.state_dict()
    state["image.pos_embed"] = encoder.image.pos_embed
    encoder.load_state_dict(state)
    return told


def model_folder(place: str) -> Path:
    """The model of a finished run, the model folder itself, or the folder of `shipped:NAME`.

    Raises:
        ValueError: there is none, or the run is not finished.
    """
    path = _shipped(place) if place.startswith(SHIPPED_PREFIX) else Path(place)
    for folder in (path / "model", path):
        if (folder / "model.safetensors").is_file():
            return folder
    if (path / "checkpoints").is_dir():
        raise ValueError(f"{place}: this run is not finished and has no model yet; continue it first")
    for folder in (path / "model", path):
        if (folder / "config.json").is_file():
            raise ValueError(f"{folder} has a config.json but no model.safetensors: copy or download the weights too")
    raise ValueError(
        f"{place}: neither a finished run nor a model folder, nor a weight file ({' '.join(WEIGHT_SUFFIXES)})"
    )


def release_config(state: dict[str, Tensor], source: str) -> EarlyFusionConfig:
    """What the shapes of the published weights tell of their encoder.

    They do not tell heads, which are 64 wide as in every ViT-S to ViT-H, nor how the fusion tokens are divided, which
    is in halves, fusion before the two kinds of aggregation (32 are 16, 8, 8).

    Raises:
        ValueError: these are not such weights.
    """
    state = {key.removeprefix("encoder."): value for key, value in state.items()}
    try:
        kernel = state["image.patch_embed.proj.weight"]
        dim, patch = kernel.shape[0], kernel.shape[-1]
        depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("image.blocks."))
        fused = sorted({int(key.split(".")[1]) for key in state if key.startswith("fusion_blocks.")})
        block = f"fusion_blocks.{fused[0]}."
        num_tokens, mlp = state["fusion_tokens"].shape[1], state[f"{block}mlp.fc1.weight"].shape[0]
        fusion, query = _form(state, block)
        return EarlyFusionConfig(
            image_size=(RELEASE_IMAGE_GRID[0] * patch, RELEASE_IMAGE_GRID[1] * patch),
            audio_size=(RELEASE_AUDIO_GRID[0] * patch, RELEASE_AUDIO_GRID[1] * patch),
            patch_size=patch,
            embed_dim=dim,
            depth=depth,
            num_heads=dim // 64,
            fusion=fusion,
            fusion_layers="all" if len(fused) == depth else tuple(fused),
            num_tokens=(num_tokens - 2 * (num_tokens // 4), num_tokens // 4, num_tokens // 4),
            fusion_attn_ratio=query.shape[0] / dim,
            fusion_mlp_ratio=mlp / dim,
        )
    except (KeyError, ValueError, IndexError, ArithmeticError) as error:
        raise ValueError(f"{source}: not the published DeepAVFusion weights of a fusing encoder ({error})") from None


def digest_weights(encoder: EarlyFusionEncoder) -> str:
    """A hash of an encoder's weights and of the frames it sees: BLAKE2b of 8 bytes, hexadecimal."""
    digest = hashlib.blake2b(digest_size=8)
    if encoder.config.num_frames > 1:
        digest.update(f"{encoder.config.num_frames} frames".encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _form(state: dict[str, Tensor], block: str) -> tuple[FusionForm, Tensor]:
    """The fusion form of the published weights and their query map."""
    if f"{block}attn.attn_v.q.weight" in state:
        return "factorized", state[f"{block}attn.q.weight"]
    dim = state[f"{block}attn.kv.weight"].shape[1]
    return ("dense" if dim == 2 * state["fusion_tokens"].shape[2] else "token"), state[f"{block}attn.q.weight"]


def _encoder_of(path: Path) -> EarlyFusionConfig:
    _, config = read_model_config(path)
    return (config if isinstance(config, EarlyFusionConfig) else config.encoder).with_own_frames()


def _shipped(place: str) -> Path:
    """The folder of a model that comes with the package. Raises ValueError if there is none of that name."""
    folder = SHIPPED / place.removeprefix(SHIPPED_PREFIX)
    names = sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
    if folder.name not in names:
        raise ValueError(f"{place}: the package ships {', '.join(SHIPPED_PREFIX + name for name in names) or 'none'}")
    return folder


def _from_hub(place: str) -> EarlyFusionEncoder:
    name = place.removeprefix(HUB_PREFIX)
    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise ValueError(f"{place}: expected hf:OWNER/NAME")
    return EarlyFusionEncoder.from_pretrained(name)
