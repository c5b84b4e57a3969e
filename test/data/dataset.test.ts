// Preparing a data set in the worker: what comes back, the cache, cancelling, hostile templates, and a free event loop.

import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, describe, expect, it } from "vitest";
import { DataError } from "#lib/errors.js";
import { prepare, runWorker } from "#lib/data/dataset.js";
import type { PrepareOptions, Prepared } from "#lib/data/dataset.js";
import type { InspectRecord } from "#lib/data/inspect.js";
import { reportLines } from "#lib/data/report.js";
import { fixture } from "./fixtures.ts";

const folder = mkdtempSync(join(tmpdir(), "attune-dataset-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const tokenizer = fixture("tokenizers/chatml");
const template = join(folder, "chatml.jinja");
writeFileSync(
  template,
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}" +
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
);
const talk = (i: number, answer = `answer ${i}`): object => ({
  messages: [
    { role: "user", content: `question ${i}` },
    { role: "assistant", content: answer },
  ],
});
function file(name: string, rows: readonly unknown[]): string {
  const path = join(folder, name);
  writeFileSync(path, rows.map((r) => (typeof r === "string" ? r : JSON.stringify(r))).join("\n"));
  return path;
}
const talks = Array.from({ length: 150 }, (_, i) => talk(i));
const run = (options: Partial<PrepareOptions>): Promise<Prepared> =>
  prepare({
    task: "sft",
    dataset: file("talks.jsonl", talks),
    tokenizer,
    chatTemplatePath: template,
    assistantOnlyLoss: true,
    cache: false,
    ...options,
  });

describe("prepare", () => {
  it("gives a tree for each row, with a report", async () => {
    const { trees, report, task, cached } = await run({});
    expect([trees.length, task, cached]).toEqual([150, "sft", false]);
    expect([...trees].map((t) => t.row)).toEqual(talks.map((_, i) => i));
    expect(report).toMatchObject({
      rows: 150,
      kept: 150,
      dropped: {},
      warnings: {},
      conversational: true,
      bos: null,
      stop: { text: "<|im_end|>" },
    });
    const tokens = [...trees].reduce((n, t) => n + t.branches[0]!.ids.length, 0);
    expect([report.tokens, report.trainedTokens]).toEqual([
      tokens,
      [...trees].reduce((n, _, i) => n + trees.trained(i), 0),
    ]);
  });

  it("takes rows from iterables, sync and async, with the same result as from a file", async () => {
    const fromFile = await run({});
    async function* later(): AsyncGenerator<object> {
      for (const t of talks) yield await Promise.resolve(t);
    }
    for (const dataset of [talks, new Set(talks), later()]) {
      const { hash, trees } = await run({ dataset });
      expect([hash, trees.length]).toEqual([fromFile.hash, 150]);
    }
  });

  it("names row and column for rows of an iterable", async () => {
    await expect(run({ dataset: [talk(0), { text: 5, messages: 3 }] })).rejects.toThrow(
      /^dataset: row 1: messages must be a list of messages, got a number/,
    );
    await expect(run({ dataset: [talk(0), 7] })).rejects.toThrow(
      /^dataset: row 1: a row must be an object, got a number/,
    );
    await expect(run({ dataset: [talk(0), { messages: () => 1 }] })).rejects.toThrow(
      /^dataset: rows 0 to 1 must be plain data/,
    );
  });

  it("passes on what an iterable throws, and closes it", async () => {
    let closed = false;
    async function* broken(): AsyncGenerator<object> {
      try {
        yield talk(0);
        throw new Error("database gone");
      } finally {
        closed = true;
      }
    }
    await expect(run({ dataset: broken() })).rejects.toThrow("database gone");
    expect(closed).toBe(true);
  });

  const odd = [talk(0), { messages: [{ role: "human", content: "x" }] }, talk(2), talk(3), { text: "x" }];

  it("stops at an invalid row, naming file and line and how to go on", async () => {
    const error: unknown = await run({ dataset: file("odd.jsonl", odd) }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DataError);
    expect((error as DataError).message).toMatch(
      /^odd\.jsonl:2: messages\[0\]\.role must be one of .*got "human" \(rename it; invalid_rows: drop leaves such rows out\)$/,
    );
    expect((error as DataError).code).toBe("ERR_DATA");
  });

  it("drops invalid rows where that is asked for, and counts them by reason", async () => {
    const { trees, report } = await run({ dataset: file("odd.jsonl", odd), invalidRows: "drop" });
    expect([...trees].map((t) => t.row)).toEqual([0, 2, 3]);
    expect(report.dropped).toEqual({
      unknown_role: { count: 1, rows: [1] },
      not_conversational: { count: 1, rows: [4] },
    });
    expect(reportLines(report)).toEqual(["dropped 1 row (1): unknown_role", "dropped 1 row (4): not_conversational"]);
  });

  it("refuses a data set without a row to train on", async () => {
    await expect(run({ dataset: file("none.jsonl", []) })).rejects.toThrow(
      /none\.jsonl: a data set must have at least one row to train on, got an empty one/,
    );
    await expect(run({ dataset: file("bad.jsonl", [{ text: "x" }]), invalidRows: "drop" })).rejects.toThrow(
      /got 1 rows, all dropped: 1 not_conversational/,
    );
  });

  it("stops at a token past the model's vocabulary", async () => {
    await expect(run({ vocabSize: 20 })).rejects.toThrow(
      /talks\.jsonl:1: ids must be below the model's vocab_size 20, got \d+ \(the tokenizer belongs to another model\)/,
    );
  });

  it("refuses a template path that leads nowhere, and a template that is none", async () => {
    await expect(run({ chatTemplatePath: join(folder, "gone") })).rejects.toThrow(
      /chat_template_path: a file or folder must exist/,
    );
    mkdirSync(join(folder, "empty"), { recursive: true });
    await expect(run({ chatTemplatePath: join(folder, "empty") })).rejects.toThrow(
      /must hold tokenizer\.json|must hold a chat template/,
    );
    const broken = join(folder, "broken.jinja");
    writeFileSync(broken, "{% for %}");
    await expect(run({ chatTemplatePath: broken })).rejects.toThrow(/chat template: must be a Jinja template/);
  });

  it("reports progress up to the last row and byte", async () => {
    const seen: number[][] = [];
    const dataset = file("talks.jsonl", talks);
    await run({ dataset, onProgress: (p) => seen.push([p.rows, p.bytes, p.totalBytes]) });
    const { size } = statSync(dataset);
    expect(seen.at(-1)).toEqual([150, size, size]);
    expect(seen.length).toBeGreaterThan(1);
  });
});

describe("the cache", () => {
  const cache = join(folder, "cache");
  const entries = (): string[] => readdirSync(join(cache, "data"));

  it("gives the same trees without reading the rows again", async () => {
    const first = await run({ cache });
    const second = await run({ cache });
    expect([first.cached, second.cached]).toEqual([false, true]);
    expect([second.hash, second.report]).toEqual([first.hash, first.report]);
    expect([...second.trees]).toEqual([...first.trees]);
  });

  it("is not used for other rows, another template, tokenizer or option", async () => {
    const other = join(folder, "other.jinja");
    writeFileSync(other, readFileSync(template, "utf8") + " ");
    const changes: Partial<PrepareOptions>[] = [
      { dataset: file("more.jsonl", [...talks, talk(150)]) },
      { chatTemplatePath: other },
      { tokenizer: fixture("tokenizers/llama") },
      { maxLength: 20 },
      { assistantOnlyLoss: false },
      { specialTokensInContent: "drop" },
    ];
    for (const change of changes) expect((await run({ cache, ...change })).cached, JSON.stringify(change)).toBe(false);
    expect((await run({ cache })).cached).toBe(true);
  });

  it("does not mind the date, unless the template prints it", async () => {
    expect((await run({ cache, chatTemplateDate: "2020-01-01" })).cached).toBe(true);
    const dated = join(folder, "dated.jinja");
    writeFileSync(dated, "{{ strftime_now('%Y') }}" + readFileSync(template, "utf8"));
    await run({ cache, chatTemplatePath: dated, chatTemplateDate: "2020-01-01" });
    expect((await run({ cache, chatTemplatePath: dated, chatTemplateDate: "2020-01-01" })).cached).toBe(true);
    expect((await run({ cache, chatTemplatePath: dated, chatTemplateDate: "2021-01-01" })).cached).toBe(false);
  });

  it("makes a damaged entry again, wherever the damage is", async () => {
    const alone = join(folder, "alone");
    const first = await run({ cache: alone });
    const path = join(alone, "data", readdirSync(join(alone, "data"))[0]!);
    const good = readFileSync(path);
    const damage: ((bytes: Buffer) => Buffer)[] = [
      () => Buffer.alloc(0),
      (b) => b.subarray(0, 30),
      (b) => b.subarray(0, b.length - 1),
      (b) => Buffer.concat([b, Buffer.of(0)]),
      ...[0, 9, 40, 4000, good.length - 40, good.length - 1].map((at) => (b: Buffer) => {
        const out = Buffer.from(b);
        out[at] = out[at]! ^ 1;
        return out;
      }),
    ];
    for (const harm of damage) {
      writeFileSync(path, harm(good));
      const again = await run({ cache: alone });
      expect([again.cached, again.hash]).toEqual([false, first.hash]);
      expect(readFileSync(path).equals(good)).toBe(true);
    }
    truncateSync(path, 0);
  });

  it("leaves no temporary files, and is no error where it cannot be written", async () => {
    expect(entries().filter((f) => !/^[0-9a-f]{64}\.bin$/.test(f))).toEqual([]);
    const blocked = join(folder, "blocked");
    writeFileSync(blocked, "a file, not a folder");
    expect((await run({ cache: blocked })).trees.length).toBe(150);
  });
});

describe("stopping", () => {
  it("an aborted run rejects with the signal's reason at once", async () => {
    const stop = new AbortController();
    async function* endless(): AsyncGenerator<object> {
      for (let i = 0; ; i++) yield talk(i);
    }
    const work = run({
      dataset: endless(),
      signal: stop.signal,
      onProgress: (p) => p.rows > 100 && stop.abort(new Error("enough")),
    });
    await expect(work).rejects.toThrow("enough");
    await expect(run({ signal: stop.signal })).rejects.toThrow("enough");
  });

  it("a template that does not end is stopped by its steps or by the clock, naming the row", async () => {
    const slow = join(folder, "slow.jinja");
    // Each step is one join of a large list, so that the clock runs out before the steps do.
    writeFileSync(
      slow,
      "{% for i in range(99999) %}{% set x = (range(99999) | map('string') | join) | length %}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}",
    );
    await expect(
      run({
        chatTemplatePath: slow,
        templateSeconds: 0.5,
        assistantOnlyLoss: false,
        dataset: file("one.jsonl", [talk(0)]),
      }),
    ).rejects.toThrow(/^data: .*the chat template must render .*within 0\.5 s/);
  });

  it("a template that eats memory is stopped, and the process lives", async () => {
    const greedy = join(folder, "greedy.jinja");
    writeFileSync(
      greedy,
      "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [range(9999) | list] %}{% endfor %}{{ ns.l | length }}",
    );
    await expect(
      run({ chatTemplatePath: greedy, workerMemory: 96, templateSeconds: 60, dataset: file("one.jsonl", [talk(0)]) }),
    ).rejects.toThrow(/must fit in 96 MiB/);
  });
});

describe("inspect", () => {
  it("gives a record for each row in order, refusing none", async () => {
    const records: InspectRecord[] = [];
    const dataset = file("odd.jsonl", [
      talk(0),
      { messages: [{ role: "human", content: "x" }] },
      { nothing: 1 },
      talk(3),
    ]);
    const options: PrepareOptions = {
      task: "sft",
      dataset,
      tokenizer,
      chatTemplatePath: template,
      assistantOnlyLoss: true,
    };
    const done = await runWorker(
      options,
      "inspect",
      async (batch) => void records.push(...(await Promise.resolve(batch))),
    );
    expect(records.map((r) => [r.row, r.dropped])).toEqual([
      [0, null],
      [1, "unknown_role"],
      [2, "unknown_columns"],
      [3, null],
    ]);
    expect(records[1]).toEqual({ row: 1, input_ids: [], trained: [], dropped: "unknown_role", warnings: [] });
    expect(done.report.kept).toBe(2);
  });

  it("waits for a slow reader", async () => {
    let held = 0;
    let most = 0;
    const read = async (): Promise<void> => {
      most = Math.max(most, ++held);
      await new Promise((resolve) => setTimeout(resolve, 10));
      held--;
    };
    await runWorker(
      {
        task: "sft",
        dataset: file(
          "many.jsonl",
          Array.from({ length: 1000 }, (_, i) => talk(i)),
        ),
        tokenizer,
        chatTemplatePath: template,
      },
      "inspect",
      read,
    );
    expect(most).toBeLessThanOrEqual(3);
  });
});

describe("the event loop", () => {
  it("stays free while a data set is prepared", async () => {
    const rows = file(
      "big.jsonl",
      Array.from({ length: 4000 }, (_, i) => talk(i, "and then some more of it ".repeat(20))),
    );
    await run({ dataset: rows });
    let turns = 0;
    let going = true;
    const turn = (): void => {
      turns++;
      if (going) setTimeout(turn, 1);
    };
    turn();
    const { trees } = await run({ dataset: rows });
    going = false;
    expect(trees.length).toBe(4000);
    expect(turns).toBeGreaterThan(50); // a loop that waits for the rows takes a few
  });

  it("may itself be that of a worker", async () => {
    const code = `
      import { parentPort, workerData } from "node:worker_threads";
      const { prepare } = await import(workerData.url);
      const { trees } = await prepare(workerData.options);
      parentPort.postMessage(trees.length);`;
    const options = {
      task: "sft",
      dataset: file("talks.jsonl", talks),
      tokenizer,
      chatTemplatePath: template,
      cache: false,
    };
    const url = import.meta.resolve("#lib/data/dataset.js");
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
      workerData: { url, options },
    });
    const answer = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    expect(answer).toBe(150);
    await worker.terminate();
  });
});
