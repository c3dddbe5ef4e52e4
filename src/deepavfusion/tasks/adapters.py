"""Low-rank adapters (LoRA, Hu et al., ICLR 2022) of peft in an encoder whose own weights stay as they are.

A map W becomes W + alpha / rank * B A, with B zero at the start. Adapted are the linear maps of attention and MLP in
the blocks of both streams and of fusion, except the key and value maps of pairs, which are no maps of single tokens.

Nothing of peft is left in a finished run: what the adapters learned is added to the weights.
"""

from __future__ import annotations

from torch import nn

from deepavfusion.configuration import AdapterConfig
from deepavfusion.models.encoder import EarlyFusionEncoder

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


def fill_adapted(encoder: EarlyFusionEncoder, plain: EarlyFusionEncoder) -> None:
    """Take over the weights of an encoder without adapters."""
    state, own = plain.state_dict(), encoder.state_dict()
    encoder.load_state_dict({name: state.get(name.replace(BASE, ""), value) for name, value in own.items()})


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
