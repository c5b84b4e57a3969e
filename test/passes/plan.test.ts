// What the planner may and may not do with storage.
import { expect, test } from "vitest";
import "#lib/ops/index.js";
import { buffer, store, trace, type Value } from "#lib/ir/graph.js";
import { type } from "#lib/ir/types.js";
import { vjp } from "#lib/ir/vjp.js";
import { linear } from "#lib/ops/gemm.js";
import { logSoftmaxGather } from "#lib/ops/log_softmax_gather.js";
import { add, exp, fill } from "#lib/ops/primitives/elementwise.js";
import { compile } from "#lib/passes/compile.js";
import { checkPlaces } from "#lib/passes/place.js";

/** The head's backward: logits (float32) die where their gradient is made. */
function head(dtype: "float32" | "bfloat16") {
  const g = trace(() => {
    const h = buffer("inputs/h", type([8, 16], dtype));
    const logits = linear(h, buffer("weights/w", type([64, 16], dtype)), undefined, "float32");
    const { logp } = logSoftmaxGather(logits, buffer("inputs/targets", type([8], "int32")), dtype);
    const [d] = vjp([[logp, fill(1, [8])]], [h]);
    store("outputs/logp", logp);
    store("outputs/d", d!);
  });
  const p = compile(g);
  checkPlaces(p.storages);
  const code = p.instructions.find((c) => c.def.name === "log_softmax_gather_backward")!;
  return { logits: code.slots[0]!.offset, dlogits: code.slots.at(-1)!.offset };
}

test("a gradient takes over the place of what it is the gradient of, where both have one width", () => {
  const { logits, dlogits } = head("float32");
  expect(dlogits).toBe(logits);
});
test("but not where the widths differ: a row of it would lie on other rows, which another thread may still have to read", () => {
  const { logits, dlogits } = head("bfloat16");
  expect(dlogits).not.toBe(logits);
});

test("x + x.W does not take the place of x, which the product still reads", () => {
  const g = trace(() => {
    const x = exp(buffer("inputs/x", type([8, 8], "float32")));
    store("outputs/y", exp(add(x, linear(x, buffer("weights/w", type([8, 8], "float32"))))));
  });
  const code = compile(g).instructions.find((c) => c.def.name === "gemm")!;
  const [a, , , onto, y] = code.slots.map((s) => s?.offset); // a, b, bias, onto, y
  expect(onto).toBe(a); // the sum was folded into the product
  expect(y).not.toBe(a);
});

test("parts of a buffer lie in it at their offsets; a part beyond it is refused, and one over what the program touches beside it", () => {
  const whole = type([2, 64]);
  const part = (k: number): Value => buffer(`grads/${k}`, type([64]), { buffer: "grads/all", type: whole, offset: 256 * k });
  const added = (k: number): void => store(`grads/${k}`, add(part(k), fill(1, [64])));
  const p = compile(trace(() => [0, 1].forEach(added)));
  expect([...p.buffers].map(([name, t]) => [name, t.within])).toEqual([
    ["grads/all", undefined],
    ["grads/0", { buffer: "grads/all", offset: 0 }],
    ["grads/1", { buffer: "grads/all", offset: 256 }],
  ]);
  const sums = p.instructions.filter((c) => c.def.name === "add");
  expect(sums.map((c) => c.slots.at(-1))).toMatchObject([0, 1].map((k) => ({ space: { buffer: `grads/${k}` }, offset: 0 })));
  expect(() => compile(trace(() => added(2)))).toThrow("grads/2 must lie within grads/all");
  const all = (): void => store("outputs/y", exp(buffer("grads/all", whole)));
  expect(() => compile(trace(() => [added(0), all()]))).toThrow("must lie apart in grads/all");
  const over = (): Value => buffer("grads/over", type([64]), { buffer: "grads/all", type: whole, offset: 128 });
  expect(() => compile(trace(() => [added(0), store("outputs/y", exp(over()))]))).toThrow("grads/over and grads/0 must lie apart in grads/all");
  expect([...compile(trace(() => [part(0), over(), all()])).buffers.keys()]).toEqual(["grads/all", "grads/0", "grads/over", "outputs/y"]); // named alone
});
