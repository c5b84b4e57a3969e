// Answers to keys that do not exist: the closest key by spelling, and for well-known keys of TRL what to write instead.

/** Damerau-Levenshtein distance (adjacent swaps count once) between two short texts. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min(row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length]!;
}

/** The candidate that `given` most likely meant, or undefined where none is close. */
export function closest(given: string, candidates: Iterable<string>): string | undefined {
  const plain = (s: string): string => s.toLowerCase().replace(/[-_\s]/g, "");
  const wanted = plain(given).slice(0, 64);
  let found: string | undefined;
  let least = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, plain(candidate));
    if (distance < least) {
      least = distance;
      found = candidate;
    }
  }
  if (found !== undefined || wanted.length < 4) return found;
  // "lr" styles apart, a word that stands whole inside one key only ("scheduler", "weight_decay_rate") means that key.
  const inside = [...candidates].filter((c) => plain(c).includes(wanted) || wanted.includes(plain(c)));
  return inside.length === 1 ? inside[0] : undefined;
}

/** TRL's and transformers' keys that have another name here, or none on purpose. */
export const TRL_KEYS: Readonly<Record<string, string>> = {
  model_name_or_path: "write model",
  dataset_name: "write dataset, the path of a file",
  train_dataset: "write dataset",
  lr: "write learning_rate",
  epochs: "write num_train_epochs",
  bf16: "write dtype: bfloat16",
  fp16: "write dtype: bfloat16; float16 is not offered",
  torch_dtype: "write dtype",
  use_cpu: "write device: cpu",
  no_cuda: "write device: cpu",
  data_seed: "write seed; it decides the order of rows",
  shuffle_dataset: "write shuffle",
  train_sampling_strategy: "write shuffle: true for random, shuffle: false for sequential",
  resume_from_checkpoint: "write resume: true",
  eval_strategy: "write eval_dataset, and eval_steps for more than one evaluation",
  per_device_eval_batch_size: "leave it out: tokens_per_batch decides for evaluation too",
  eval_packing: "leave it out: evaluation is always packed",
  packing_strategy: "leave it out: rows are packed whole, best fit first",
  padding_free: "leave it out: there is never padding",
  pad_to_multiple_of: "leave it out: there is never padding",
  pad_token: "leave it out: there is never padding",
  optim: "leave it out: adamw with float32 master weights is the one optimiser",
  gradient_checkpointing: "leave it out: what to recompute is decided by the planner",
  use_liger_kernel: "leave it out: the fused head is always used",
  truncation_mode: "leave it out: rows longer than max_length are cut at the end (keep_start)",
  max_prompt_length: "write max_length: it limits prompt and completion together",
  precompute_ref_batch_size: "leave it out: tokens_per_batch decides",
  dataset_num_proc: "leave it out: rows are prepared in a worker",
  disable_dropout: "leave it out: there is no dropout",
  reference_free: "leave it out: it is not offered",
  report_to: "leave it out: metrics are in metrics.jsonl and report.html",
  use_peft: "leave it out: adapters are not offered yet",
  lora_r: "leave it out: adapters are not offered yet",
  load_in_4bit: "leave it out: quantised weights are not offered yet",
  load_in_8bit: "leave it out: quantised weights are not offered yet",
};
