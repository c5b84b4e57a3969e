import { mkdtemp, rm, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { afterAll, describe, expect, it } from "vitest";
import { WriteError } from "#lib/errors.js";
import { resolveConfig } from "#lib/train/config.js";
import { formatConfig } from "#lib/train/config_record.js";
import { writeReport } from "#lib/train/report.js";
import { embedJson, escapeHtml } from "#lib/train/report_page.js";

const folders: string[] = [];
async function tempDir(): Promise<string> {
  folders.push(await mkdtemp(join(tmpdir(), "attune-report-")));
  return folders.at(-1)!;
}
afterAll(() => Promise.all(folders.map((dir) => rm(dir, { recursive: true, force: true }))));

const HOSTILE = `</script><script>alert("x")</script><img src=x onerror='alert(1)'>&amp;\u2028`;

interface Files {
  metrics?: readonly unknown[];
  samples?: readonly unknown[];
  config?: Record<string, unknown>;
  tail?: string;
}

/** A run folder with these files, and its report. */
async function report(files: Files): Promise<{ dir: string; html: string }> {
  const dir = await tempDir();
  const lines = (rows: readonly unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  if (files.metrics) await writeFile(join(dir, "metrics.jsonl"), lines(files.metrics) + (files.tail ?? ""));
  if (files.samples) await writeFile(join(dir, "samples.jsonl"), lines(files.samples));
  if (files.config) {
    await writeFile(
      join(dir, "config.yaml"),
      formatConfig(resolveConfig("dpo", { model: "m", dataset: "d", ...files.config }).config),
    );
  }
  await writeReport(dir);
  return { dir, html: await readFile(join(dir, "report.html"), "utf8") };
}

/** What the page's script reads. */
function plotted(html: string): {
  steps: number[];
  charts: { title: string; series: { key: string; values: (number | null)[] }[] }[];
} {
  const text = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html)![1]!;
  return JSON.parse(text) as ReturnType<typeof plotted>;
}

describe("report.html", () => {
  it("draws every metric that was logged, evaluation beside training, in the order of steps", async () => {
    const { html } = await report({
      metrics: [
        {
          step: 1,
          loss: 0.7,
          grad_norm: 2,
          learning_rate: 1e-6,
          "rewards/chosen": 0.1,
          "rewards/rejected": -0.1,
          epoch: 0.5,
        },
        {
          step: 2,
          loss: 0.6,
          grad_norm: 1,
          learning_rate: 5e-7,
          "rewards/chosen": 0.2,
          "rewards/rejected": -0.2,
          epoch: 1,
        },
        { step: 2, eval_loss: 0.65, another: 3 },
      ],
    });
    const { steps, charts } = plotted(html);
    expect(steps).toEqual([1, 2]);
    expect(charts.map(({ title }) => title)).toEqual(["Loss", "Rewards", "Gradient norm", "Learning rate", "another"]);
    expect(charts[0]!.series).toEqual([
      { key: "loss", values: [0.7, 0.6] },
      { key: "eval_loss", values: [null, 0.65] },
    ]);
  });

  it("shows summary, configuration and samples as text", async () => {
    const { html } = await report({
      metrics: [
        { step: 1, loss: 0.5 },
        { step: 1, train_runtime: 75, train_loss: 0.5, peak_bytes: 1.5e9 },
      ],
      config: { beta: 0.25 },
      samples: [{ step: 1, prompt: [{ role: "user", content: "Why?" }], completion: "Because." }],
    });
    expect(html).toContain("finished");
    expect(html).toContain("1 min 15 s");
    expect(html).toContain("1.50 GB");
    expect(html).toContain(`<tr><th scope="row">beta</th><td>0.25</td></tr>`);
    expect(html).toContain("user: Why?");
    expect(html).toContain("Because.");
    expect(plotted(html).steps).toEqual([1]);
  });

  it("lets nothing from a run become markup or code", async () => {
    const { html } = await report({
      metrics: [{ step: 1, loss: 1, [HOSTILE]: 2 }],
      config: { model: HOSTILE, dataset: HOSTILE },
      samples: [{ prompt: HOSTILE, completion: [{ role: HOSTILE, content: HOSTILE }] }],
    });
    // Only the page's own elements: one block of data and two scripts, and no image.
    expect(html.match(/<script/g)).toHaveLength(3);
    expect(html.match(/<\/script/g)).toHaveLength(3);
    expect(html).not.toContain("<img");
    expect(plotted(html).charts.at(-1)!.title).toBe(HOSTILE);
  });

  it("allows exactly its own scripts, and no address", async () => {
    const { html } = await report({ metrics: [{ step: 1, loss: 1 }] });
    const policy = /Content-Security-Policy" content="([^"]*)"/.exec(html)![1]!.replaceAll("&#39;", "'");
    const scripts = [...html.matchAll(/<script>(.*?)<\/script>/gs)].map((match) => match[1]!);
    expect(scripts).toHaveLength(2);
    const hashes = scripts.map((text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`);
    expect(policy).toBe(
      `default-src 'none'; style-src 'unsafe-inline'; script-src ${hashes.join(" ")}; base-uri 'none'; form-action 'none'`,
    );
    expect(html).not.toMatch(/(src|href)="/);
  });

  it("is written for a run that has just begun, and for one that was cut off in a line", async () => {
    expect((await report({})).html).toContain("No step has been logged yet");
    const { html } = await report({ metrics: [{ step: 1, loss: 1 }], tail: '{"step": 2, "lo' });
    expect(plotted(html).steps).toEqual([1]);
    expect(html).toContain("not finished");
  });

  it("takes NaN in a metric (null in JSON) for a gap", async () => {
    const { html } = await report({
      metrics: [
        { step: 1, loss: 1 },
        { step: 2, loss: null },
        { step: 3, loss: 2 },
      ],
    });
    expect(plotted(html).charts[0]!.series[0]!.values).toEqual([1, null, 2]);
  });

  it("pools long runs to means and says so", async () => {
    const metrics = Array.from({ length: 5000 }, (_, i) => ({ step: i + 1, loss: i % 2 }));
    const { html } = await report({ metrics });
    const { steps, charts } = plotted(html);
    expect(steps).toHaveLength(Math.ceil(5000 / 3));
    expect(steps[0]).toBe(3);
    expect(charts[0]!.series[0]!.values.slice(0, 2)).toEqual([1 / 3, 2 / 3]);
    expect(html).toContain("mean of 3 logged lines");
  });

  it("leaves nothing half-written, and replaces an older page", async () => {
    const { dir } = await report({ metrics: [{ step: 1, loss: 1 }] });
    await writeFile(join(dir, "metrics.jsonl"), '{"step": 9, "loss": 1}\n');
    await writeReport(dir);
    expect((await readdir(dir)).sort()).toEqual(["metrics.jsonl", "report.html"]);
    expect(plotted(await readFile(join(dir, "report.html"), "utf8")).steps).toEqual([9]);
  });

  it("that cannot be written is a WriteError", async () => {
    await expect(writeReport("/no/such/folder")).rejects.toThrow(WriteError);
    const dir = await tempDir();
    await expect(writeReport(join(dir, "missing"))).rejects.toThrow(/report\.html.*must be writable/);
  });

  it("is made in turns with other work", async () => {
    const dir = await tempDir();
    const lines = Array.from({ length: 20_000 }, (_, i) => JSON.stringify({ step: i, loss: 1, grad_norm: 2 }));
    await writeFile(join(dir, "metrics.jsonl"), lines.join("\n"));
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await writeReport(dir);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(3);
  });
});

describe("escaping", () => {
  it("covers markup, quotes, control characters and the direction of writing", () => {
    expect(escapeHtml(`<a b="c" d='e'>&`)).toBe("&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
    expect(escapeHtml("a\u0000\u0007\u202eb\n\t")).toBe("a\u2400\u2407\ufffdb\n\t");
  });

  it("keeps JSON the same value, without a character that ends a script", () => {
    expect(JSON.parse(embedJson({ a: HOSTILE }))).toEqual({ a: HOSTILE });
    expect(embedJson(HOSTILE)).not.toMatch(/[<>&\u2028]/);
  });
});
