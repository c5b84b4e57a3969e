// Long rows and large vocabularies: what they ask of memory, and that attention's cuts of a long row into ranges and groups change nothing.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { attention, run, tensor, type Tensor } from "#lib/kernels.js";
import { kernelOps } from "#lib/ir/op.js";

const node = promisify(execFile);
const MIB = 2 ** 20;

test("a row of 16,384 tokens asks for less than 64 MiB, a head of 152,064 for less than 256 MiB, at every level of this CPU", async () => {
  const script = new URL("scratch.mjs", import.meta.url).pathname;
  const levels = ["baseline", "avx2", "avx512", "avx512_bf16"];
  const all = await Promise.all(levels.map((ATTUNE_CPU) => node(process.execPath, [script], { env: { ...process.env, ATTUNE_CPU } })));
  for (const { stdout } of all) {
    const asked = JSON.parse(stdout) as { level: string; attention: { bytes: number }; head: number };
    expect(asked.attention.bytes, stdout).toBeGreaterThan(MIB);
    expect(asked.attention.bytes, stdout).toBeLessThan(64 * MIB);
    expect(asked.head, stdout).toBeLessThan(256 * MIB);
  }
}, 60_000);

/** Numbers in [-1, 1), the same on every machine. */
function numbers(n: number, seed: number): Float32Array {
  const out = new Float32Array(n);
  let s = seed;
  for (let i = 0; i < n; i++) out[i] = (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1;
  return out;
}
const bf16 = (x: Float32Array): Uint16Array => new Uint16Array(x.buffer.slice(0)).filter((_, i) => i % 2 === 1);
const back = (x: ArrayLike<number>): Float32Array => new Float32Array(Uint32Array.from(x, (v) => v << 16).buffer);

describe("25 documents of 640 tokens packed into 16,000, where a head's keys go in ranges and its query heads in groups", () => {
  const [docs, each, H, K, D] = [25, 640, 2, 1, 256];
  const backward = kernelOps().find((d) => d.name === `${attention.def.name}_backward`)!;
  const gradients = async (n: number, from: number, cast: (x: Float32Array) => Float32Array | Uint16Array): Promise<Record<string, Tensor>> => {
    const part = (seed: number, heads: number): Tensor => tensor(cast(numbers(docs * each * heads * D, seed).slice(from * heads * D, (from + n) * heads * D)), [n, heads, D]);
    const end = Int32Array.from({ length: n }, (_, i) => (Math.floor(i / each) + 1) * each);
    const pos = Int32Array.from({ length: n }, (_, i) => i % each);
    const given = { q: part(1, H), k: part(2, K), v: part(3, K), end, pos };
    const attrs = { scale: 1 / 16, window: 0 };
    const saved = (await run(attention, given, attrs)) as Record<string, Tensor>;
    const all: Record<string, Tensor | Int32Array> = { ...given, ...saved, dy: part(4, H) };
    return run({ def: backward }, Object.fromEntries([...backward.inputs, ...backward.optional].flatMap((k) => (all[k] ? [[k, all[k]]] : []))), { ...attrs, want: ["q", "k", "v"] }) as Promise<Record<string, Tensor>>;
  };
  const wantAndGot = async (cast: (x: Float32Array) => Float32Array | Uint16Array, f: (name: string, got: Tensor["data"], want: Tensor["data"]) => void): Promise<void> => {
    const packed = await gradients(docs * each, 0, cast);
    for (const doc of [0, 7, 24]) {
      const alone = await gradients(each, doc * each, cast);
      for (const [name, { data, shape }] of Object.entries(alone)) {
        const row = shape[1]! * D;
        f(`${name} of document ${doc}`, packed[name]!.data.slice(doc * each * row, (doc + 1) * each * row), data);
      }
    }
  };

  test("float32: each document's gradients are those of the document alone, to the last bit", async () => {
    let seen = 0;
    await wantAndGot((x) => x, (name, got, want) => {
      expect(Buffer.from(got.buffer).equals(Buffer.from(want.buffer)), name).toBe(true);
      expect(want.some((x) => x !== 0), name).toBe(true);
      seen++;
    });
    expect(seen).toBe(9);
  }, 60_000);
  test("bfloat16: to a rounding", async () => {
    await wantAndGot(bf16, (name, got, want) => {
      const [a, b] = [back(got), back(want)];
      const norm = (x: Float32Array): number => Math.sqrt(x.reduce((s, v) => s + v * v, 0));
      expect(norm(a.map((v, i) => v - b[i]!)) / norm(b), name).toBeLessThan(2 ** -8);
    });
  }, 60_000);
});
