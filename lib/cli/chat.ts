// `attune chat`: a conversation in the terminal, or one question a line from a pipe.

import { createInterface } from "node:readline";
import type { JsonObject } from "../data/json.ts";
import type { Completion, Generator, Sampling } from "../generate/generate.ts";
import { parseShape } from "../train/config_parse.ts";
import type { Command, Io } from "./command.ts";
import { message } from "./generate.ts";
import { library } from "./library.ts";
import { chatShape } from "./shapes.ts";
import { printable } from "./text.ts";

export const command: Command = {
  summary: "Talk to a model",
  details: "Type a question and press Enter. /new forgets what was said, /exit or Ctrl-D ends, Ctrl-C stops an answer.",
  examples: ["attune chat ./model", 'attune chat ./model --system "Answer in one sentence." --temperature 0'],
  shape: chatShape,
  argument: { name: "[model]", description: "The same as --model." },
  async run(call, io) {
    const flags = call.argument === undefined ? call.flags : { model: call.argument, ...call.flags };
    const options = parseShape(chatShape, flags, { spelling: "snake", label: (key) => `--${key}` });
    const { openGenerator } = await library.generate();
    await using generator = await openGenerator({
      model: options.model,
      device: options.device,
      dtype: options.dtype,
      threads: options.threads,
      chatTemplatePath: options.chat_template_path,
      chatTemplateDate: options.chat_template_date,
    });
    io.progress.close();
    const sampling = {
      maxNewTokens: options.max_new_tokens,
      temperature: options.temperature,
      topK: options.top_k,
      topP: options.top_p,
    };
    await converse(generator, options.system, sampling, options.seed, io);
  },
};

/** Answers one line after another until the input ends. Each answer has a seed of its own. */
async function converse(
  generator: Generator,
  system: string | null,
  sampling: Omit<Sampling, "seed" | "signal">,
  seed: number,
  io: Io,
): Promise<void> {
  const terminal = process.stdin.isTTY === true && process.stderr.isTTY === true;
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal, prompt: "> " });
  let answering: AbortController | undefined;
  lines.on("SIGINT", () => {
    if (answering) answering.abort();
    else process.kill(process.pid, "SIGINT");
  });
  const start = (): JsonObject[] => (system === null ? [] : [message("system", system)]);
  let messages = start();
  if (terminal) lines.prompt();
  for await (const line of lines) {
    const said = line.trim();
    if (said === "/exit") break;
    if (said === "/new") messages = start();
    else if (said !== "") {
      answering = new AbortController();
      messages.push(message("user", said));
      const signal = AbortSignal.any([io.signal, answering.signal]);
      const answer = await say(generator, messages, { ...sampling, seed: seed++, signal }, io);
      answering = undefined;
      messages.push(message("assistant", answer));
    }
    if (terminal) lines.prompt();
  }
  lines.close();
}

/** Streams one answer to stdout and returns it whole; one that was stopped is what came until then. */
async function say(generator: Generator, messages: readonly JsonObject[], options: Sampling, io: Io): Promise<string> {
  let answer = "";
  let done: Completion | undefined;
  try {
    for await (const piece of generator.chat(messages, options)) {
      answer += piece.text;
      done = piece.done;
      if (!io.json) io.write(printable(piece.text, true));
    }
  } catch (error) {
    if (!options.signal?.aborted || io.signal.aborted) throw error;
  }
  if (io.json) {
    const finish = done?.finishReason ?? "stopped";
    io.value({ role: "assistant", content: answer, tokens: done?.tokens ?? null, finish_reason: finish });
  } else io.write("\n");
  return answer;
}
