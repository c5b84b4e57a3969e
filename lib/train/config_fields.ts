// Every key of an SFT or DPO run, defined once. Defaults are TRL's unless the description says why not.

import { z } from "zod";
import { preferenceLosses, type PreferenceLossType } from "../losses/preference.ts";
import { parseBytes } from "./config_bytes.ts";
import { field } from "./config_schema.ts";

const RUN = "Model, data and output";
const LENGTH = "How long and how fast";
const BATCH = "Batches";
const OPTIM = "Optimiser";
const LOSS = "Loss";
const ROWS = "Rows and tokens";
const EVAL = "Evaluation";
const SAVE = "Logging and saving";
const MACHINE = "Machine";

const text = z.string().min(1);
const count = z.int().min(1);

/** A size in bytes: a number, or a text such as "8GB" or "512MiB". Becomes a number. */
const bytes = z.union([z.number().positive(), text]).transform((value, ctx) => {
  const parsed = parseBytes(value);
  if (parsed === undefined) ctx.addIssue({ code: "custom", message: "size" });
  return parsed ?? 0;
});

/** What is trained on what: the keys that both tasks have first. */
export function runShape<T extends "sft" | "dpo">(task: T) {
  return {
    task: field(z.literal(task).default(task as never), {
      group: RUN,
      description:
        "Kind of run. `plan`, `inspect` and `profile` read it; without it they look at the rows (`chosen` means dpo).",
      defaultText: task,
    }),
    model: field(text, {
      group: RUN,
      placeholder: "dir",
      description: "Folder of the model to start from, in Hugging Face's layout.",
    }),
    dataset: field(text, { group: RUN, placeholder: "file", description: "File of training rows: .jsonl or .json." }),
    output_dir: field(text.default("trainer_output"), {
      group: RUN,
      neutral: true,
      placeholder: "dir",
      description: "Folder of the run: final model, checkpoints, metrics.jsonl, report.html.",
    }),
    overwrite_output_dir: field(z.boolean().default(false), {
      group: RUN,
      neutral: true,
      description: "Replace the run that output_dir already holds. Otherwise such a folder is refused.",
    }),
    resume: field(z.boolean().default(false), {
      group: RUN,
      neutral: true,
      description: "Go on from the newest complete checkpoint of output_dir, or from the start where there is none.",
    }),
  };
}

/** The further keys of both tasks, in the order in which help shows them. `lr` is the task's default learning rate. */
export function trainingShape(lr: number) {
  return {
    learning_rate: field(z.number().min(0).default(lr), { group: LENGTH, description: "Peak learning rate." }),
    lr_scheduler_type: field(z.enum(["linear", "cosine", "constant", "constant_with_warmup"]).default("linear"), {
      group: LENGTH,
      description: "Learning rate over the run. `constant` ignores the warm-up, as in transformers.",
    }),
    warmup_steps: field(z.number().min(0).default(0), {
      group: LENGTH,
      must: "a whole number of steps >= 0, or a share of the run below 1",
      description: "Optimiser steps of linear warm-up; below 1 it is a share of all steps.",
    }),
    warmup_ratio: field(z.number().min(0).max(1).optional(), {
      group: LENGTH,
      defaultText: "unset",
      description: "Warm-up as a share of all steps; give this or warmup_steps.",
    }),
    num_train_epochs: field(z.number().positive().default(3), {
      group: LENGTH,
      description: "Passes over the rows; a fraction is allowed.",
    }),
    max_steps: field(z.union([z.literal(-1), count]).default(-1), {
      group: LENGTH,
      must: "a whole number >= 1, or -1",
      description: "Optimiser steps in all; overrides num_train_epochs. -1: the epochs decide.",
    }),

    batch_size: field(count.optional(), {
      group: BATCH,
      defaultText: "8",
      description: "Examples per optimiser step. How they are spread over micro-batches does not change the result.",
    }),
    per_device_train_batch_size: field(count.optional(), {
      group: BATCH,
      defaultText: "8",
      description: "TRL's spelling: batch_size = per_device_train_batch_size x gradient_accumulation_steps.",
    }),
    gradient_accumulation_steps: field(count.optional(), {
      group: BATCH,
      defaultText: "1",
      description: "See per_device_train_batch_size.",
    }),
    tokens_per_batch: field(count.nullable().default(null), {
      group: BATCH,
      neutral: true,
      defaultText: "fits every example",
      description: "Tokens of one micro-batch; smaller needs less memory.",
    }),
    packing: field(z.boolean().default(false), {
      group: BATCH,
      neutral: true,
      description:
        "Accepted for TRL's sake: micro-batches are always packed, without padding, and rows never see each other.",
    }),
    shuffle: field(z.boolean().default(true), {
      group: BATCH,
      description: "Draw a new order of the rows each epoch; false keeps the file's order.",
    }),
    seed: field(z.int().min(0).max(4294967295).default(42), {
      group: BATCH,
      description: "Seed of the order of rows.",
    }),

    weight_decay: field(z.number().min(0).default(0), {
      group: OPTIM,
      description: "AdamW's decoupled decay; biases and norms have none.",
    }),
    adam_beta1: field(z.number().min(0).lt(1).default(0.9), {
      group: OPTIM,
      description: "Decay of AdamW's first moment.",
    }),
    adam_beta2: field(z.number().min(0).lt(1).default(0.999), {
      group: OPTIM,
      description: "Decay of AdamW's second moment.",
    }),
    adam_epsilon: field(z.number().positive().default(1e-8), { group: OPTIM, description: "AdamW's epsilon." }),
    max_grad_norm: field(z.number().min(0).default(1), {
      group: OPTIM,
      description: "Gradients are scaled down to this global norm; 0 leaves them.",
    }),
    grad_dtype: field(z.enum(["float32"]).default("float32"), {
      group: OPTIM,
      description: "Type in which gradients are accumulated.",
    }),

    max_length: field(z.int().min(2).nullable().default(1024), {
      group: ROWS,
      description: "Tokens of a row (prompt and completion); longer ones are cut at the end. null: no limit.",
    }),
    invalid_rows: field(z.enum(["error", "drop"]).default("error"), {
      group: ROWS,
      description: "What to do with a row that cannot be used: stop and name it, or leave it out and count it.",
    }),
    special_tokens_in_content: field(z.enum(["warn", "drop", "error"]).default("warn"), {
      group: ROWS,
      description: "What to do with a message whose text spells a special token, which would become a control token.",
    }),
    chat_template_path: field(text.nullable().default(null), {
      group: ROWS,
      placeholder: "file",
      defaultText: "the model's own",
      description: "Chat template to use instead of the model's own: a .jinja file, or a folder that has one.",
    }),
    chat_template_date: field(z.iso.date().nullable().default(null), {
      group: ROWS,
      placeholder: "date",
      must: "a date such as 2026-01-31",
      defaultText: "today",
      description: "The date that a template's strftime_now sees; the run records it.",
    }),

    eval_dataset: field(text.nullable().default(null), {
      group: EVAL,
      neutral: true,
      placeholder: "file",
      defaultText: "none",
      description: "File of rows to evaluate on.",
    }),
    eval_steps: field(count.nullable().default(null), {
      group: EVAL,
      neutral: true,
      defaultText: "once, at the end",
      description: "Optimiser steps between evaluations.",
    }),
    eval_rows: field(count.nullable().default(null), {
      group: EVAL,
      neutral: true,
      defaultText: "all",
      description: "Rows of eval_dataset to use.",
    }),

    logging_steps: field(count.default(10), {
      group: SAVE,
      neutral: true,
      description: "Optimiser steps between lines of metrics.jsonl.",
    }),
    save_strategy: field(z.enum(["steps", "epoch", "no"]).default("steps"), {
      group: SAVE,
      neutral: true,
      description: "When to write a checkpoint; the final model is always written.",
    }),
    save_steps: field(count.default(500), {
      group: SAVE,
      neutral: true,
      description: "Optimiser steps between checkpoints.",
    }),
    save_total_limit: field(count.nullable().default(null), {
      group: SAVE,
      neutral: true,
      defaultText: "all",
      description: "Newest checkpoints to keep; older ones are deleted.",
    }),
    save_dtype: field(z.enum(["auto", "float32", "bfloat16"]).default("auto"), {
      group: SAVE,
      neutral: true,
      description: "Type of the saved weights; auto: that of the model it started from.",
    }),

    device: field(z.enum(["auto", "cpu", "cuda", "simt"]).default("auto"), {
      group: MACHINE,
      neutral: true,
      description: "Where to run; auto: cuda where it can run, else cpu. simt: cuda's kernels on an emulator, for tests.",
    }),
    dtype: field(z.enum(["float32", "bfloat16"]).nullable().default(null), {
      group: MACHINE,
      defaultText: "float32 on cpu, bfloat16 on cuda",
      description: "Type of weights and activations while training; master weights, sums and losses stay float32.",
    }),
    threads: field(count.max(1024).nullable().default(null), {
      group: MACHINE,
      neutral: true,
      defaultText: "the cores this process may use",
      description: "CPU threads. Results do not depend on it.",
    }),
    memory_limit: field(bytes.nullable().default(null), {
      group: MACHINE,
      neutral: true,
      must: 'a size such as "8GB" or "512MiB", or a number of bytes',
      placeholder: "size",
      defaultText: "what the machine has",
      description: "Memory that the run may use; a run that needs more is refused before it starts.",
    }),
  };
}

/** Keys of SFT alone. */
export const sftExtra = {
  dataset_text_field: field(text.default("text"), { group: RUN, description: "Column of rows that are plain texts." }),
  assistant_only_loss: field(z.boolean().default(false), {
    group: LOSS,
    description: "Conversations: train only on what the assistant says.",
  }),
  completion_only_loss: field(z.boolean().nullable().default(null), {
    group: LOSS,
    defaultText: "on for prompt-completion rows",
    description: "Train only on the completion; false: on the prompt too.",
  }),
};

const lossType = z.enum(Object.keys(preferenceLosses) as PreferenceLossType[]);

/** Keys of DPO alone. */
export const dpoExtra = {
  beta: field(z.number().positive().default(0.1), {
    group: LOSS,
    description:
      "How strongly the policy is held to the reference: a larger beta keeps it closer. For ipo it is the paper's tau.",
  }),
  loss_type: field(
    z
      .union([
        lossType,
        z
          .array(lossType)
          .length(1)
          .transform((list) => list[0]!),
      ])
      .prefault("sigmoid"),
    {
      group: LOSS,
      must: "one of sigmoid, ipo, hinge",
      description: "Loss over a pair's log-probability ratios.",
    },
  ),
  label_smoothing: field(z.number().min(0).lt(0.5).default(0), {
    group: LOSS,
    description: "Probability that a preference is the wrong way round (cDPO); with loss_type sigmoid only.",
  }),
  ref_model: field(text.nullable().default(null), {
    group: LOSS,
    placeholder: "dir",
    defaultText: "model",
    description: "Folder of the reference model.",
  }),
  precompute_ref_log_probs: field(z.boolean().default(true), {
    group: LOSS,
    neutral: true,
    description:
      "Accepted for TRL's sake: the reference is always scored once, before training, and cached; so it takes no memory.",
  }),
  prompt_trees: field(z.boolean().default(true), {
    group: LOSS,
    neutral: true,
    description: "Compute a pair's prompt once for both completions; false computes it twice, with the same result.",
  }),
};
