// Run files and flags that are wrong. Command lines themselves: usage.test.ts; every rule of every key: test/train/config.test.ts.

import { put, refused, DPO, SFT, type Case } from "./bad_input.ts";

const file = (what: string, text: string | Uint8Array, says: string | RegExp): Case => {
  return { what, plant: put("bad.yaml", text), args: ["sft", "bad.yaml"], code: 2, says };
};
const flags = (what: string, args: string[], says: string | RegExp): Case => ({ what, args, code: 2, says });
const rest = "dataset: texts.jsonl\nmodel: model\n";

refused("a configuration that is wrong", [
  file("a list in place of keys", "- a\n- b\n", /^bad\.yaml: must be a YAML mapping of keys to values, .*, got a list$/),
  file("a text in place of keys", "hello\n", /^bad\.yaml: must be a YAML mapping of keys to values, .*, got a text$/),
  file("bytes that are no text", Buffer.from([137, 80, 78, 71, 0, 255]), /^bad\.yaml.*: must be a?.*YAML.*got/),
  file("a tab", "model:\tm\n\tdataset: d\n", /^bad\.yaml:2: must be YAML, got a text that is not \(Tabs are not allowed/),
  file("a bracket left open", `${rest}seed: [1\n`, /^bad\.yaml:\d: must be YAML, got a text that is not/),
  file("a key twice", `${rest}seed: 1\nseed: 2\n`, "bad.yaml:4: must be YAML, got a text that is not (Map keys must be unique)"),
  file("a key that does not exist", `${rest}lerning_rate: 1\n`, "bad.yaml:3: lerning_rate: no such key (did you mean learning_rate?)"),
  file("a key of the other task", `${rest}beta: 0.1\n`, "bad.yaml:3: beta: no such key (it belongs to dpo: leave it out)"),
  file("a key that TRL has under another name", `${rest}bf16: true\n`, "bad.yaml:3: bf16: no such key (write dtype: bfloat16)"),
  file("a word for a number", `${rest}max_steps: ten\n`, 'bad.yaml:3: max_steps: must be a whole number >= 1, or -1, got "ten"'),
  file("a list for a text", `dataset: texts.jsonl\nmodel: [model]\n`, 'bad.yaml:2: model: must be a text that is not empty, got ["model"]'),
  file("nothing for a number", `${rest}seed:\n`, /^bad\.yaml:3: seed: must be a whole number .*, got null \(leave the key out for its default\)$/),
  file("NaN", `${rest}learning_rate: .nan\n`, "bad.yaml:3: learning_rate: must be a number >= 0, got NaN"),
  flags("a folder for a run file", ["sft", "model"], "model: must be a YAML file that can be read, got a folder"),
  flags("a task that does not exist", ["plan", "sft.yaml", "--task", "reward"], '--task: must be one of sft, dpo, got "reward"'),
  flags("a loss without label smoothing", [...DPO, "--loss_type", "ipo", "--label_smoothing", "0.1"], "--label_smoothing: must be 0 with loss_type ipo, got 0.1"),
  flags("two batch sizes", [...SFT, "--batch_size", "7", "--gradient_accumulation_steps", "2"], /^--batch_size: must equal .* = 16, got 7 \(give one or the other\)$/),
  flags("two warm-ups", [...SFT, "--warmup_steps", "7", "--warmup_ratio", "0.5"], "--warmup_ratio: must be alone, got warmup_steps 7 too (give one or the other)"),
  flags("evaluation steps without rows", [...DPO, "--eval_steps", "1"], /^--eval_steps: must come with eval_dataset, got none/),
  flags("a type that is not offered", [...SFT, "--dtype", "float16"], '--dtype: must be one of float32, bfloat16 or null, got "float16" (did you mean bfloat16?)'),
  flags("a size in words", [...SFT, "--memory_limit", "lots"], /^--memory_limit: must be a size such as "8GB" or .*, got "lots"$/),
  flags("a day that is none", [...SFT, "--chat_template_date", "2026-13-01"], '--chat_template_date: must be a date such as 2026-01-31, got "2026-13-01"'),
  flags("a budget that holds no example", [...SFT, "--tokens_per_batch", "5"], /^tokens_per_batch: must hold every example, got 5 and row 4 of dataset with 47 tokens \(set tokens_per_batch to 47/),
]);
