// The most scratch that attention asks of this CPU level for a row of 16,384 tokens, whatever the head's size and the heads' grouping,
// and the arena of a training step whose head has a vocabulary of 152,064. Prints {level, attention, head}: bytes. Nothing is run.
import "#lib/ops/index.js";
import { buffer, store, trace } from "#lib/ir/graph.js";
import { type } from "#lib/ir/types.js";
import { vjp } from "#lib/ir/vjp.js";
import { inMemory, parameters, parseConfig } from "#lib/models/config.js";
import { attention } from "#lib/ops/attention.js";
import { compile } from "#lib/passes/compile.js";
import { cpuInfo, scratchOf } from "#lib/runtime/host.js";
import { grainOf, planHead } from "#lib/train/engine.js";
import { microStep } from "#lib/train/programs.js";

const N = 16384;
let most = { bytes: 0 };
for (let D = 8; D <= 256; D += 8)
  for (const [H, K] of [[1, 1], [8, 8], [8, 1], [14, 2], [32, 8], [32, 1]])
    for (const dtype of ["float32", "bfloat16"]) {
      const q = () => type([N, H, D], dtype);
      const graph = trace(() => {
        const [x, k, v] = [buffer("inputs/q", q()), buffer("inputs/k", type([N, K, D], dtype)), buffer("inputs/v", type([N, K, D], dtype))];
        const y = attention(x, k, v, buffer("inputs/end", type([N], "int32")), { scale: 1, window: 0 }, buffer("inputs/pos", type([N], "int32")));
        vjp([[y, buffer("inputs/dy", q())]], [x, k, v], (of, d) => store(`outputs/${[x, k, v].indexOf(of)}`, d));
      });
      const bytes = compile(graph, scratchOf("cpu")).scratchBytes;
      if (bytes > most.bytes) most = { bytes, D, H, K, dtype };
    }

const config = parseConfig({
  architectures: ["LlamaForCausalLM"], model_type: "llama", vocab_size: 152064, hidden_size: 896, intermediate_size: 64, num_hidden_layers: 1,
  num_attention_heads: 2, num_key_value_heads: 1, head_dim: 64, max_position_embeddings: N, hidden_act: "silu", rms_norm_eps: 1e-5, rope_theta: 1e4, tie_word_embeddings: true,
});
const list = inMemory(parameters(config));
const heads = ["sft", "dpo"].flatMap((kind) =>
  ["float32", "bfloat16"].map((dtype) => {
    const loss = kind === "sft" ? { kind } : { kind, lossType: "sigmoid", beta: 0.1, labelSmoothing: 0 };
    const head = planHead(grainOf({ device: "cpu", deviceMemory: 0, fusesHead: false }, "float32"), config.vocabSize, 1024, 1024, 4, 1024, kind); // DPO's logits of the longest pair do not fit: computed twice
    return compile(microStep({ config, parameters: list, dtype }, head.sizes, loss, head.kept), scratchOf("cpu")).arenaBytes;
  }),
);
console.log(JSON.stringify({ level: cpuInfo().level, attention: most, head: Math.max(...heads) }));
