"""Make what both sides train: a random Llama with its tokenizer, sft.jsonl and dpo.jsonl of conversations.

    python fixture.py DIR --lengths mixed --rows 80

Words come from the Python library's own source, so that a fixture needs nothing but the packages of requirements.txt.
"""
import argparse
import json
import random
import sysconfig
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# hidden size, layers, heads, key-value heads, MLP size, vocabulary
SIZES = {"tiny": (128, 4, 4, 2, 352, 4096), "small": (384, 8, 6, 2, 1024, 16384)}
# mean words of an SFT prompt and answer, of a preference prompt and answer; sigma of their log-normal spread
LENGTHS = {"mixed": (50, 90, 90, 60, 0.6), "long-prompt": (240, 30, 240, 30, 0.25)}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# ChatML; `generation` marks what the assistant says
TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- message.content + '<|im_end|>' }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""


def library_texts():
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")])[:600]:
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if text:
            yield text


def make_tokenizer(texts, vocabulary):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    fast.chat_template = TEMPLATE
    return fast


def make_model(size, seed):
    hidden, layers, heads, kv_heads, mlp, vocabulary = SIZES[size]
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=mlp, vocab_size=vocabulary, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=2, pad_token_id=0))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--lengths", choices=LENGTHS, default="mixed")
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    texts = list(library_texts())
    make_tokenizer(texts, SIZES[args.size][-1]).save_pretrained(args.dir)
    make_model(args.size, args.seed).save_pretrained(args.dir)

    draw = random.Random(args.seed)
    words = " ".join(texts).split()
    sft_prompt, sft_answer, dpo_prompt, dpo_answer, sigma = LENGTHS[args.lengths]

    def say(role, mean):
        count = max(4, round(mean * draw.lognormvariate(0, sigma)))
        start = draw.randrange(len(words) - count)
        return [{"role": role, "content": " ".join(words[start:start + count])}]

    def write(name, row):
        (args.dir / name).write_text("".join(json.dumps(row()) + "\n" for _ in range(args.rows)))

    write("sft.jsonl", lambda: {"messages": say("user", sft_prompt) + say("assistant", sft_answer)})
    write("dpo.jsonl", lambda: {"prompt": say("user", dpo_prompt), "chosen": say("assistant", dpo_answer),
                                "rejected": say("assistant", dpo_answer)})


main()
