"""Toy-size folders of the four architectures, as `save_pretrained` writes them.

The files, names of weights and wrapping heads are those of the published models; the sizes are not,
and the weights are random.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = (
    "the quick brown fox jumps over the lazy dog and I am really happy to be here with you today",
    "well, I don't know what to say about that; nobody told me anything!",
)


def _save(folder: Path, model: str, config: Any, seed: int) -> Path:
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(transformers, model)(config)
    made.save_pretrained(folder)
    return folder


def save_swin(folder: Path, *, image_px: int = 56, seed: int = 0, **preprocessor: Any) -> Path:
    """Swin with head, width 32; `preprocessor` goes to preprocessor_config.json where given."""
    from transformers import SwinConfig

    config = SwinConfig(
        image_size=image_px, embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=7
    )
    _save(folder, "SwinForImageClassification", config, seed)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def save_hubert(folder: Path, *, seed: int = 0, **preprocessor: Any) -> Path:
    """HuBERT of width 32 with the published strides and kernels; `preprocessor` as for Swin."""
    from transformers import HubertConfig

    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embedding_groups=4,
    )
    _save(folder, "HubertModel", config, seed)
    said = {"do_normalize": True, "sampling_rate": 16_000, **preprocessor}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def save_roberta(folder: Path, *, positions: int = 514, seed: int = 0) -> Path:
    """RoBERTa with language head, width 32, and a byte-level BPE tokenizer trained on `TEXT`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        TEXT * 4,
        vocab_size=400,
        min_frequency=2,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    _save(folder, "RobertaForMaskedLM", config, seed)
    tokenizer.save_model(str(folder))
    return folder


def save_beit(folder: Path, *, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """BEiT with masked-image head, set up as microsoft/beit-base-patch16-224-pt22k is."""
    from transformers import BeitConfig

    config = BeitConfig(
        vocab_size=16,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        image_size=32,
        use_mask_token=True,
        use_shared_relative_position_bias=True,
    )
    return _save(folder, "BeitForMaskedImageModeling", config, seed)
