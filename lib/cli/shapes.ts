// Flags of the commands that do not train; sft, dpo, plan, inspect and profile take the keys of a run file.

import { z } from "zod";
import { field } from "../train/config_schema.ts";
import { sftShape } from "../train/config.ts";

const MODEL = "Model";
const INPUT = "Input";
const OUTPUT = "Output";
const SAMPLING = "Sampling";

const text = z.string().min(1);
const { device, threads } = sftShape;

const model = field(text, {
  group: MODEL,
  placeholder: "dir",
  description: "Folder of the model, in Hugging Face's layout.",
});
const template = {
  chat_template_path: sftShape.chat_template_path,
  chat_template_date: sftShape.chat_template_date,
};
const machine = (dtype: string) => ({
  device,
  dtype: field(z.enum(["float32", "bfloat16"]).nullable().default(null), {
    group: "Machine",
    defaultText: dtype,
    description: "Type of weights and activations.",
  }),
  threads,
});

const sampling = (temperature: number) => ({
  max_new_tokens: field(z.int().min(1).max(1_048_576).default(256), { group: SAMPLING, description: "Tokens of an answer at most." }),
  temperature: field(z.number().min(0).default(temperature), {
    group: SAMPLING,
    description: "0 always takes the likeliest token; 1 samples from the model's own distribution.",
  }),
  top_k: field(z.int().min(0).default(0), {
    group: SAMPLING,
    description: "Sample from the k likeliest tokens only; 0: from all.",
  }),
  top_p: field(z.number().gt(0).max(1).default(1), {
    group: SAMPLING,
    description: "Sample from the likeliest tokens that together have this probability.",
  }),
  seed: field(z.int().min(0).max(4294967295).default(42), { group: SAMPLING, description: "Seed of the sampling." }),
});

export const initShape = {
  config: field(text, {
    group: MODEL,
    placeholder: "file",
    description: "config.json of the model, or a folder that has one.",
  }),
  tokenizer: field(text.nullable().default(null), {
    group: MODEL,
    placeholder: "dir",
    defaultText: "the folder of config.json, where it has a tokenizer",
    description: "Folder whose tokenizer files are copied.",
  }),
  output_dir: field(text, { group: OUTPUT, placeholder: "dir", description: "Folder of the new model." }),
  overwrite_output_dir: field(z.boolean().default(false), {
    group: OUTPUT,
    description: "Replace the model that output_dir already holds.",
  }),
  dtype: field(z.enum(["float32", "bfloat16"]).nullable().default(null), {
    group: OUTPUT,
    defaultText: "the config's own",
    description: "Type of the saved weights.",
  }),
  seed: field(z.int().min(0).max(4294967295).default(42), { group: OUTPUT, description: "Seed of the weights." }),
};

export const scoreShape = {
  model,
  data: field(text, {
    group: INPUT,
    placeholder: "file",
    description: 'Rows to score (.jsonl or .json): {"input_ids"}, {"text"} or {"prompt", "completion"}.',
  }),
  skip_invalid: field(z.boolean().default(false), {
    group: INPUT,
    description:
      "Score the good rows before a bad one ends the command with exit code 3; otherwise nothing is printed.",
  }),
  tokens_per_batch: sftShape.tokens_per_batch,
  ...machine("float32"),
};

export const generateShape = {
  model,
  prompt: field(z.array(z.string()).default([]), {
    group: INPUT,
    defaultText: "none",
    placeholder: "text",
    description: "A text to go on from; may be given several times.",
  }),
  data: field(text.nullable().default(null), {
    group: INPUT,
    placeholder: "file",
    defaultText: "none",
    description: 'Rows to answer (.jsonl or .json): {"prompt"} (a text or messages) or {"messages"}.',
  }),
  chat: field(z.boolean().default(false), {
    group: INPUT,
    description: "Take a prompt that is a text for a question: a user's message, through the chat template.",
  }),
  system: field(text.nullable().default(null), {
    group: INPUT,
    placeholder: "text",
    defaultText: "none",
    description: "A system message before each question.",
  }),
  ...template,
  ...sampling(0),
  ...machine("float32 on cpu, bfloat16 on cuda"),
};

export const chatShape = {
  model,
  system: field(text.nullable().default(null), {
    group: INPUT,
    placeholder: "text",
    defaultText: "none",
    description: "A system message to begin with.",
  }),
  ...template,
  ...sampling(0.7),
  ...machine("float32 on cpu, bfloat16 on cuda"),
};
