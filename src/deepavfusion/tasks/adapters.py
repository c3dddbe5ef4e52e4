"""Low-rank adapters (LoRA, Hu et al., ICLR 2022) of peft in an encoder whose own weights stay as they are.

A map W becomes W + alpha / rank * B A, with B zero at the start. Adapted are the linear maps of attention and MLP in
the blocks of both streams and of fusion, except the key and value maps of pairs, which are no maps of single tokens.

Nothing of peft is left in a finished run: what the adapters learned is added to the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from deepavfusion.configuration import AdapterConfig
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.weight_files import check_keys

ADAPTED = r".*blocks\.\d+\..*\b(qkv|q|kv|proj|fc1|fc2)"
"""Names of the maps in an encoder."""
BASE = ".base_layer"
"""What peft adds to the names of an adapted map's own weights."""


def add_adapters(encoder: EarlyFusionEncoder, config: AdapterConfig) -> None:
    """Adapt an encoder, drawing from torch's global generator; from here on only the adapters have gradients.

    Raises:
        ValueError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("--lora.rank needs peft, which is not installed: pip install 'deepavfusion[lora]'") from error
    inject_adapter_in_model(LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=ADAPTED), encoder)


def fill_adapted(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Fill a model, whose encoder may be adapted, with the weights of one that is not.

    Raises:
        ValueError: they do not fit exactly.
    """
    own = model.state_dict()
    plain = {name: name.replace(BASE, "") for name in own if ".lora_" not in name}
    check_keys(state, {plain[name]: own[name] for name in plain}, source)
    model.load_state_dict({name: state[plain[name]] if name in plain else value for name, value in own.items()})


def merge_adapters(encoder: EarlyFusionEncoder) -> None:
    """Add what the adapters learned to the weights, and take them out again."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in encoder.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        base: nn.Module = module.get_base_layer()
        setattr(encoder.get_submodule(parent), child, base)
    del encoder.peft_config
