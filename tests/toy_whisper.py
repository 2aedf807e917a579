"""A whisper with random weights, in the folder that faster-whisper loads."""

from __future__ import annotations

import json
from pathlib import Path

N_VOCABULARY = 51_866
N_TIMESTAMPS = 1501  # 0.00 to 30.00 s


def write_toy_whisper(folder: Path) -> Path:
    """Write the model and its tokenizer, whose words are bytes and `w0`, `w1`, ..."""
    import torch
    from ctranslate2.converters import TransformersConverter
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [f"<|{code}|>" for code in LANGUAGES]
    special = [
        *("<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>"),
        *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
        *(f"<|{k * 0.02:.2f}|>" for k in range(N_TIMESTAMPS)),
    ]
    plain = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain += [f"Ġw{k}" for k in range(N_VOCABULARY - len(plain) - len(special) - 1)]
    plain += [""]  # by which CTranslate2 tells a multilingual model
    vocabulary = {token: k for k, token in enumerate(plain)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    ids = {token: tokenizer.token_to_id(token) for token in special}
    end = ids["<|endoftext|>"]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(
            WhisperConfig(
                vocab_size=N_VOCABULARY,
                d_model=64,
                encoder_layers=1,
                decoder_layers=2,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                bos_token_id=end,
                eos_token_id=end,
                pad_token_id=end,
                decoder_start_token_id=ids["<|startoftranscript|>"],
                suppress_tokens=None,
                begin_suppress_tokens=None,
            )
        )
    model.generation_config = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        lang_to_id={language: ids[language] for language in languages},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        is_multilingual=True,
        alignment_heads=[[1, 0], [1, 1]],
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    source = folder / "transformers"
    model.save_pretrained(source)
    tokenizer.save(str(source / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<|endoftext|>"}
    (source / "tokenizer_config.json").write_text(json.dumps(names))
    converter = TransformersConverter(str(source), copy_files=["tokenizer.json"])
    return Path(converter.convert(str(folder / "toy")))
