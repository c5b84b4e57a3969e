"""Trains the quickstart's tokenizer: byte-level BPE on the committed data, with a ChatML-like template.

    pip install tokenizers==0.23.2
    python examples/quickstart/make_tokenizer.py

Reads data/base.jsonl and data/sft.jsonl, writes model/tokenizer.json. The result is committed; nobody needs to run this
unless the corpus changes.
"""
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 2048


def texts():
    for name in ("base", "sft"):
        with open(HERE / "data" / f"{name}.jsonl", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if "text" in row:
                    yield row["text"]
                for message in row.get("messages", []):
                    # The role and its line break as the chat template writes them.
                    yield f"{message['role']}\n"
                    yield message["content"]


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.save(str(HERE / "model" / "tokenizer.json"))
    count = sum(len(tokenizer.encode(text).ids) for text in texts())
    words = sum(len(text.split()) for text in texts())
    print(f"{tokenizer.get_vocab_size()} tokens in the vocabulary, {count / words:.2f} tokens per word")


if __name__ == "__main__":
    main()
