"""TRL's side: train the first steps of one epoch; after each, print one JSON line of seconds, tokens, losses and peak memory so far.

    python trl_run.py FIXTURE --task dpo --dtype float32 --steps 16 --batch 4 --max-length 512

`mixed` is TRL's default, bfloat16 autocast over float32 weights; `bfloat16` keeps weights and log-probabilities in bfloat16
too. The reference model has the policy's dtype (left to itself TRL loads a float32 one) and runs inside the step.
"""
import argparse
import json
import resource
import tempfile
import time
from importlib.metadata import version

import datasets
import torch
import transformers
import trl

parser = argparse.ArgumentParser()
parser.add_argument("fixture")
parser.add_argument("--task", choices=["sft", "dpo"], required=True)
parser.add_argument("--dtype", choices=["float32", "mixed", "bfloat16"], required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--max-length", type=int, required=True)
parser.add_argument("--learning-rate", type=float, required=True)
args = parser.parse_args()

datasets.disable_caching()
torch.manual_seed(0)
dtype = torch.bfloat16 if args.dtype == "bfloat16" else torch.float32


def load():
    return transformers.AutoModelForCausalLM.from_pretrained(args.fixture, dtype=dtype, attn_implementation="sdpa")


class Clock(transformers.TrainerCallback):
    """Seconds of each step; says after each where the run stands, so that a run cut short has said what it saw."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.began)

    def on_log(self, args, state, *_, **__):
        report(self.seconds, [entry["loss"] for entry in state.log_history if "loss" in entry])


def tokens_of(row):
    if args.task == "sft":
        return min(len(row["input_ids"]), args.max_length)
    return sum(min(len(row["prompt_ids"]) + len(row[side]), args.max_length) for side in ("chosen_ids", "rejected_ids"))


def report(seconds, losses):
    used = trainer.train_dataset.select(range(len(seconds) * args.batch))
    print(json.dumps({
        "step_seconds": seconds,
        "tokens": sum(map(tokens_of, used)),
        "losses": losses,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "trl", "transformers")},
    }), flush=True)


rows = datasets.load_dataset("json", data_files=f"{args.fixture}/{args.task}.jsonl", split="train")
options = dict(
    max_steps=args.steps, per_device_train_batch_size=args.batch, max_length=args.max_length, learning_rate=args.learning_rate,
    lr_scheduler_type="constant", bf16=args.dtype == "mixed", use_cpu=True, gradient_checkpointing=False,
    train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True)
clock = Clock()
with tempfile.TemporaryDirectory() as scratch:
    common = dict(train_dataset=rows, processing_class=transformers.AutoTokenizer.from_pretrained(args.fixture), callbacks=[clock])
    if args.task == "sft":
        config = trl.SFTConfig(output_dir=scratch, assistant_only_loss=True, **options)
        trainer = trl.SFTTrainer(load(), args=config, **common)
    else:
        config = trl.DPOConfig(output_dir=scratch, beta=0.1, **options)
        trainer = trl.DPOTrainer(load(), ref_model=load(), args=config, **common)
    trainer.remove_callback(transformers.PrinterCallback)  # stdout is ours
    trainer.train()
