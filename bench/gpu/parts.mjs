// What a GPU is asked, in order of value: each part is one process. `read` says what its output is: "check" (ok and FAIL lines, its exit code),
// "json" (a row a line) or "text" (kept, no verdict). `seconds` is its own limit. A figure with `match` is set beside the peers' rows that agree.
const B = "{build}";
const bench = (name, op, flags, match) => ({
  name, seconds: 60, read: "json", match: { op, ...match },
  command: ["{node}", "bench/op.mjs", op, "--device", "{device}", "--json", "--dtype", "bfloat16", ...flags.split(" ")],
});
const torch = (only) => ({ name: `torch-${only}`, seconds: 90, read: "json", peer: true, command: ["{python}", "bench/peer/torch_ops.py", "--only", only] });
const beside = (task, dtype, seconds) => ({ name: `${task}-${dtype}`, seconds, read: "json", command: ["{node}", "bench/gpu/beside.mjs", task, dtype, "{device}"] });
const sanitize = (tool, seconds) => ({ name: tool, seconds, read: "check", command: ["{sanitizer}", "--tool", tool, "--error-exitcode", "9", `${B}/attune-check`, "{bundle}", "--skip-nan"] });
const model = { "0.5b": "bench/gpu/qwen-0.5b.json", "8b-shapes": "bench/gpu/llama-8b.json" };
const steps = (name, task, n) => ({ name: `${name}-${task}`, seconds: 120, read: "json", match: { task, model: name }, command: ["{node}", "bench/gpu/steps.mjs", task, model[name], n, "{device}"] });
const profile = { seconds: 60, read: "text", command: ["{node}", "bench/gpu/steps.mjs", "sft", model["0.5b"], "6", "{device}", "profile"] };
const torchSteps = (name, task, micro, ...more) => ({
  name: `torch-${name}-${task}${more.join("")}`, seconds: 150, read: "json", peer: true, task, model: name, last: true,
  command: ["{python}", "bench/peer/torch_steps.py", model[name], task, "--micro", micro, ...more],
});

export function parts(device) {
  const small = device === "simt";
  const checks = [
    { name: "doctor", seconds: 30, read: "text", command: ["{node}", "dist/cli/main.js", "doctor"] },
    { name: "probes", seconds: 60, read: "check", command: [`${B}/attune-probes`] },
    { name: "ops", seconds: small ? 300 : 90, read: "check", command: [`${B}/attune-check`, "{bundle}", ...(small ? ["--only", "rms_norm"] : [])] },
    { name: "rows", seconds: small ? 300 : 60, read: "check", command: [`${B}/attune-rows`, ...(small ? ["--only", "swiglu"] : [])] },
    { name: "large", seconds: small ? 300 : 60, read: "check", command: [`${B}/attune-large`, ...(small ? ["262144"] : [])] },
    { name: "answers", seconds: small ? 300 : 60, read: "json", command: ["{node}", "bench/gpu/answers.mjs", "{device}"] },
    beside("sft", "float32", small ? 300 : 60),
    beside("dpo", "float32", small ? 300 : 60),
    beside("sft", "bfloat16", small ? 300 : 60),
    beside("dpo", "bfloat16", small ? 300 : 60),
  ];
  if (small) return [...checks, bench("bench-rms-norm", "rms_norm", "--tokens 8 --hidden 64", { tokens: 8, hidden: 64 })];
  const tools = [sanitize("memcheck", 120), sanitize("racecheck", 180)];
  const attention = (tokens, heads, dim, mask) =>
    ["attention", "attention_backward"].map((op) =>
      bench(`bench-${op}-${tokens}-${dim}-${mask}`, op, `--tokens ${tokens} --heads ${heads} --head-dim ${dim} --mask ${mask}`, { tokens, heads, dim, mask }));
  const both = (op, flags, match) => [op, `${op}_backward`].map((o) => bench(`bench-${o}`, o, flags, match));
  return [
    ...checks,
    ...tools,
    ...attention(8192, "32/8", 128, "causal"),
    ...attention(16384, "32/8", 128, "tree"),
    ...attention(16384, "32/8", 128, "packed"),
    ...attention(8192, "14/2", 64, "causal"),
    ...both("rms_norm", "--tokens 16384 --hidden 4096", { tokens: 16384, hidden: 4096 }),
    ...both("swiglu", "--tokens 8192 --intermediate 8192", { tokens: 8192, intermediate: 8192 }),
    bench("bench-adamw", "adamw", "--hidden 4096 --intermediate 8192", { elements: 4096 * 8192 }),
    bench("bench-linear-logprob", "linear_logprob", "--rows 4096 --hidden 2048 --vocab 65536", { rows: 4096, hidden: 2048, vocab: 65536 }),
    ...["ceilings", "sdpa", "varlen", "norm", "swiglu", "adamw", "head"].map(torch),
    steps("0.5b", "sft", "8"),
    steps("0.5b", "dpo", "8"),
    steps("8b-shapes", "sft", "6"),
    torchSteps("0.5b", "sft", "8"),
    torchSteps("0.5b", "dpo", "8"),
    torchSteps("8b-shapes", "sft", "4"),
    torch("flex"),
    torchSteps("0.5b", "sft", "8", "--compile"),
    torchSteps("0.5b", "dpo", "8", "--compile"),
    { name: "0.5b-sft-profile", ...profile },
    torchSteps("8b-shapes", "sft", "4", "--compile"),
  ];
}
