"""What cuBLAS sustains for seconds, when a GPU has come to its power limit: TFLOP/s of each fifth of a second, and what nvidia-smi says meanwhile.

    python torch_sustained.py
"""
import json, subprocess, time
import torch

ASKED = "--query-gpu=clocks.sm,power.draw,temperature.gpu,clocks_event_reasons.active"


def smi():
    return subprocess.run(["nvidia-smi", ASKED, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()


def run(m, n, k, form, seconds):
    """(m, k) times (n, k) transposed, or with `tn` (k, m) transposed times (k, n): a forward's product, and a weight gradient's."""
    shape = ((m, k), (n, k)) if form == "nt" else ((k, m), (k, n))
    a, b = (torch.randn(*s, device="cuda", dtype=torch.bfloat16) for s in shape)
    f = (lambda: a @ b.t()) if form == "nt" else (lambda: a.t() @ b)
    for _ in range(3):
        f()
    torch.cuda.synchronize()
    runs = max(1, int(0.2 * 700e12 / (2 * m * n * k)))
    rates, end = [], time.time() + seconds
    while time.time() < end:
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        for _ in range(runs):
            f()
        ended.record()
        says = smi()
        ended.synchronize()
        rates.append(round(2 * m * n * k * runs / begun.elapsed_time(ended) * 1e-9))
    print(json.dumps({"shape": [m, n, k, form], "tflops": rates, "smi": says}), flush=True)


run(8192, 8192, 8192, "nt", 3)
run(32768, 14336, 4096, "nt", 2.5)
run(4096, 14336, 32768, "tn", 2.5)
run(32768, 4864, 896, "nt", 2)
