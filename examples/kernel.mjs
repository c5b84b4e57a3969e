// One kernel by itself: attention over a prompt tree, [prompt | chosen | rejected], beside the plain formula.
//
//     node examples/kernel.mjs
import { attention, run, tensor } from "attune/kernels";

const [prompt, chosen, rejected] = [5, 3, 4]; // tokens
const [heads, kvHeads, dim] = [4, 2, 16];
const tokens = prompt + chosen + rejected;
const random = (n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);

// Key j is visible to query i iff j <= i < end[j]: the prompt to all, each completion to itself.
const end = Int32Array.from({ length: tokens }, (_, j) => (j < prompt || j >= prompt + chosen ? tokens : prompt + chosen));
const pos = Int32Array.from({ length: tokens }, (_, i) => (i < prompt + chosen ? i : i - chosen));
const q = tensor(random(tokens * heads * dim), [tokens, heads, dim]);
const k = tensor(random(tokens * kvHeads * dim), [tokens, kvHeads, dim]);
const v = tensor(random(tokens * kvHeads * dim), [tokens, kvHeads, dim]);
const scale = dim ** -0.5;

const { y } = await run(attention, { q, k, v, end, pos }, { scale }, { device: "cpu" });

let worst = 0;
for (let i = 0; i < tokens; i++)
  for (let h = 0; h < heads; h++) {
    const g = Math.floor((h * kvHeads) / heads);
    const dot = (j) => Array.from({ length: dim }, (_, d) => q.data[(i * heads + h) * dim + d] * k.data[(j * kvHeads + g) * dim + d]).reduce((a, b) => a + b);
    const weights = Array.from({ length: tokens }, (_, j) => (j <= i && i < end[j] ? Math.exp(scale * dot(j)) : 0));
    const sum = weights.reduce((a, b) => a + b);
    for (let d = 0; d < dim; d++) {
      const want = weights.reduce((a, w, j) => a + (w / sum) * v.data[(j * kvHeads + g) * dim + d], 0);
      worst = Math.max(worst, Math.abs(want - y.data[(i * heads + h) * dim + d]));
    }
  }
console.log(`attention of ${tokens} tokens, ${heads} heads: largest difference from the formula ${worst.toExponential(1)}`);
if (!(worst < 1e-5)) process.exitCode = 1;
