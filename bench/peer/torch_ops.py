"""PyTorch's kernels at the shapes of bench/gpu.mjs, one JSON line each: the peers of `npm run bench -- OP --device cuda`.

    python torch_ops.py [--only NAME]

Random normal data; median of CUDA events over at least 20 launches after three; bf16. FLOPs count visible pairs, a backward 2.5 times its
forward, as bench does. PyTorch falls back in silence, so an attention row names the kernel that ran.
"""
import argparse, json, sys
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

bf16, dev = torch.bfloat16, "cuda"
rand = lambda *s, grad=False: torch.randn(*s, device=dev, dtype=bf16, requires_grad=grad)


def median_ms(f, n=30):
    for _ in range(3):
        f()
    times = []
    for _ in range(n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); f(); b.record(); b.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[n // 2]


def row(op, peer, ms, flops=0, bytes=0, **more):
    print(json.dumps({"op": op, "peer": peer, "median_ms": ms, "tflops": flops / ms * 1e-9, "gbs": bytes / ms * 1e-6, **more}), flush=True)


def both(op, peer, forward, inputs, d_out, flops=0, bytes=0, backward_bytes=0, **more):
    row(op, peer, median_ms(forward), flops, bytes, **more)
    y = forward()
    ms = median_ms(lambda: torch.autograd.grad(y, inputs, d_out, retain_graph=True))
    row(op + "_backward", peer, ms, 2.5 * flops, backward_bytes, **more)


def kernel_of(f):
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as p:
        f(); torch.cuda.synchronize()
    return max(p.key_averages(), key=lambda e: e.self_device_time_total).key[:60]


def sdpa(tokens, heads, kv, dim):
    q, k, v = rand(1, heads, tokens, dim, grad=True), rand(1, kv, tokens, dim, grad=True), rand(1, kv, tokens, dim, grad=True)
    for name, backend in (("cuDNN SDPA", SDPBackend.CUDNN_ATTENTION), ("FA2 SDPA", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(backend):
            f = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            both("attention", name, f, (q, k, v), rand(1, heads, tokens, dim), 2 * tokens * tokens * dim * heads, mask="causal", tokens=tokens, heads=f"{heads}/{kv}", dim=dim, kernel=kernel_of(f))


def flex(tokens, heads, kv, dim, mask):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    end, pairs = mask_ends(tokens, mask)
    e = torch.tensor(end, device=dev)
    block = create_block_mask(lambda b, h, i, j: (j <= i) & (i < e[j]), 1, 1, tokens, tokens, device=dev)
    q, k, v = rand(1, heads, tokens, dim, grad=True), rand(1, kv, tokens, dim, grad=True), rand(1, kv, tokens, dim, grad=True)
    run = torch.compile(flex_attention)
    both("attention", "FlexAttention", lambda: run(q, k, v, block_mask=block, enable_gqa=True), (q, k, v), rand(1, heads, tokens, dim), 4 * pairs * dim * heads, mask=mask, tokens=tokens, heads=f"{heads}/{kv}", dim=dim)


def varlen(tokens, heads, kv, dim):
    """The packed mask by FlashAttention over cumulative lengths; key heads are repeated where this PyTorch's has no GQA."""
    import inspect
    from torch.nn.attention.varlen import varlen_attn
    _, pairs = mask_ends(tokens, "packed")
    whole = tokens // 8
    starts = torch.arange(0, tokens + 1, whole, device=dev, dtype=torch.int32)
    takes = inspect.signature(varlen_attn).parameters
    gqa = {"enable_gqa": True} if "enable_gqa" in takes else {}
    causal = {"is_causal": True} if "is_causal" in takes else {"window_size": (-1, 0)}
    q, k, v = rand(tokens, heads, dim, grad=True), rand(tokens, kv if gqa else heads, dim, grad=True), rand(tokens, kv if gqa else heads, dim, grad=True)
    f = lambda: varlen_attn(q, k, v, starts, starts, whole, whole, **causal, **gqa)
    both("attention", "varlen_attn" + ("" if gqa else ", heads repeated"), f, (q, k, v), rand(tokens, heads, dim), 4 * pairs * dim * heads, mask="packed", tokens=tokens, heads=f"{heads}/{kv}", dim=dim, kernel=kernel_of(f))


def mask_ends(n, mask):
    """`end` of each key as the benches' masks have it (`masked` in lib/ops/samples.ts), and the visible pairs."""
    whole = {"packed": n // 8, "tree": n // 4, "causal": n}[mask]
    trunk, branch = (whole // 2, whole // 4) if mask == "tree" else (whole, whole)
    end = []
    for i in range(n):
        start, at = i - i % whole, i % whole
        first = 0 if at < trunk else trunk + branch * ((at - trunk) // branch)
        end.append(min(n, start + (whole if at < trunk else min(whole, first + branch))))
    return end, sum(e - j for j, e in enumerate(end))


def norm(n, c):
    x, w = rand(n, c, grad=True), rand(c, grad=True)
    for name, f in (("F.rms_norm", lambda: F.rms_norm(x, (c,), w, 1e-6)), ("compiled", torch.compile(lambda: F.rms_norm(x, (c,), w, 1e-6)))):
        both("rms_norm", name, f, (x, w), rand(n, c), 0, 4 * n * c, 6 * n * c, tokens=n, hidden=c)


def swiglu(n, f_):
    x = rand(n, 2 * f_, grad=True)
    both("swiglu", "compiled", torch.compile(lambda: F.silu(x[:, :f_]) * x[:, f_:]), (x,), rand(n, f_), 0, 6 * n * f_, 10 * n * f_, tokens=n, intermediate=f_)


def adamw(n):
    p = torch.nn.Parameter(torch.randn(n, device=dev)); p.grad = torch.randn(n, device=dev)
    o = torch.optim.AdamW([p], lr=1e-4, fused=True)
    row("adamw", "fused, fp32", median_ms(o.step), 0, 28 * n, elements=n)


def head(m, c, v):
    x, w, t = rand(m, c), rand(v, c) * 0.02, torch.randint(v, (m,), device=dev)
    f = torch.compile(lambda: F.cross_entropy((x @ w.T).float(), t, reduction="none"))
    with torch.no_grad():
        row("linear_logprob", "compiled cross-entropy", median_ms(f), 2 * m * c * v, rows=m, hidden=c, vocab=v)
        row("linear_logprob", "cuBLAS product alone", median_ms(lambda: x @ w.T), 2 * m * c * v, rows=m, hidden=c, vocab=v)


def ceilings():
    a, b = rand(8192, 8192), rand(8192, 8192)
    row("gemm", "cuBLAS 8192^3", median_ms(lambda: a @ b), 2 * 8192 ** 3)
    x = torch.empty(1 << 31, device=dev, dtype=torch.uint8); y = torch.empty_like(x)
    row("copy", "device to device", median_ms(lambda: y.copy_(x)), 0, 2 << 31)


PARTS = {
    "ceilings": ceilings,
    "sdpa": lambda: (sdpa(4096, 32, 8, 128), sdpa(8192, 32, 8, 128), sdpa(16384, 32, 8, 128), sdpa(8192, 14, 2, 64)),
    "norm": lambda: norm(16384, 4096),
    "swiglu": lambda: swiglu(8192, 8192),
    "adamw": lambda: adamw(4096 * 8192),
    "head": lambda: head(4096, 2048, 65536),
    "varlen": lambda: varlen(16384, 32, 8, 128),
    "flex": lambda: (flex(16384, 32, 8, 128, "packed"), flex(16384, 32, 8, 128, "tree")),
}

if __name__ == "__main__":
    ap = argparse.ArgumentParser(); ap.add_argument("--only", choices=PARTS)
    only = ap.parse_args().only
    print(json.dumps({"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "device": torch.cuda.get_device_name()}), flush=True)
    for name, part in PARTS.items():
        if only in (None, name):
            try:
                part()
            except Exception as e:  # a peer that fails is a row
                print(json.dumps({"part": name, "error": str(e)[:300]}), flush=True)
