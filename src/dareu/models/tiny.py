"""The `tiny` base: a small Llama from its config, a BPE tokenizer trained on the corpus, saved like any model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dareu.config import BackboneConfig, TinyConfig

# Two turns and no more; the same template code path as for any chat model.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with its own pad token and the template above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_tiny(config: TinyConfig, texts: Iterable[str], seed: int, folder: Path) -> None:
    """Write an untrained tiny model and its tokenizer to `folder`, as `save_pretrained` does."""
    model, tokenizer = new_tiny(config, texts, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def new_tiny(
    config: TinyConfig, texts: Iterable[str], seed: int, init_std: float | None = None
) -> tuple[Any, Any]:
    """(untrained model, tokenizer). `init_std`: of the initial weights; None leaves the library's default."""
    from transformers import LlamaForCausalLM

    from dareu.models.seeds import seeded

    tokenizer = train_tokenizer(texts, config.vocab_size)
    shape = tiny_shape(config, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    if init_std is not None:
        shape.initializer_range = init_std
    with seeded(seed):
        model = LlamaForCausalLM(shape)
    return model, tokenizer


def tiny_shape(config: TinyConfig, vocab_size: int, eos: int | None = None, pad: int | None = None) -> Any:
    """The Llama configuration of a tiny model."""
    ends = {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": pad}
    return llama_shape(config, vocab_size, config.max_length, tie_word_embeddings=True, **ends)


def llama_shape(sizes: TinyConfig | BackboneConfig, vocab_size: int, positions: int, **more: Any) -> Any:
    """The configuration of a Llama of these sizes; `more`: what else it says."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=positions,
        **more,
    )
