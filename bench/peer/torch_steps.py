"""Training steps of a Hugging Face model in plain PyTorch: the peer of `attune sft | dpo --device cuda`, one JSON line a step.

    python torch_steps.py CONFIG.json sft|dpo [--rows 16] [--micro 8] [--steps 8] [--compile]

SFT: `rows` documents of 2048 tokens a step, in micro-batches of `micro` rows, no padding, every token trained. DPO: `rows` pairs of a
prompt of 1024 tokens with two completions of 256, reference log-probabilities given, chosen and rejected concatenated as TRL does,
the head on completion positions alone (kinder than TRL). Random weights, bf16 throughout, AdamW fused on bf16 (no fp32 master: also
kinder), cuDNN attention, gradients accumulated in bf16.
"""
import argparse, json, time
import torch, transformers
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ap = argparse.ArgumentParser()
ap.add_argument("config"); ap.add_argument("task", choices=["sft", "dpo"])
ap.add_argument("--rows", type=int, default=16); ap.add_argument("--micro", type=int, default=8)
ap.add_argument("--steps", type=int, default=8); ap.add_argument("--compile", action="store_true")
a = ap.parse_args()
config = transformers.AutoConfig.for_model(**json.load(open(a.config)))
torch.manual_seed(1)
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
body, head = model.model, model.lm_head.weight
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
PROMPT, ANSWER = 1024, 256


def hidden_of(ids):
    return body(input_ids=ids, use_cache=False).last_hidden_state


def logps(h, targets):
    return -F.cross_entropy((h @ head.T).float().flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def sft_loss(ids):
    return -logps(hidden_of(ids)[:, :-1], ids[:, 1:]).sum() / (a.rows * (ids.shape[1] - 1))


def dpo_loss(ids):
    h = hidden_of(ids)[:, PROMPT - 1 : -1]
    chosen, rejected = logps(h, ids[:, PROMPT:]).sum(1).chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).sum() / a.rows


loss_of = sft_loss if a.task == "sft" else dpo_loss
if a.compile:
    loss_of = torch.compile(loss_of)
for step in range(a.steps):
    torch.cuda.synchronize(); start = time.perf_counter(); total = 0
    for _ in range(0, a.rows, a.micro):
        if a.task == "sft":
            ids = torch.randint(config.vocab_size, (a.micro, 2048), device="cuda")
        else:
            prompts = torch.randint(config.vocab_size, (a.micro, PROMPT), device="cuda")
            ids = torch.cat([torch.cat([prompts, torch.randint(config.vocab_size, (a.micro, ANSWER), device="cuda")], 1) for _ in range(2)])
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            loss = loss_of(ids)
            loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step(); optimizer.zero_grad(set_to_none=False)
    torch.cuda.synchronize(); seconds = time.perf_counter() - start
    row = {"step": step + 1, "loss": total, "grad_norm": norm.item(), "seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated()}
    row |= {"tokens_per_second": a.rows * 2048 / seconds} if a.task == "sft" else {"pairs_per_second": a.rows / seconds}
    print(json.dumps(row), flush=True)
