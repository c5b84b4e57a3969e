// Every op that has a gradient, on each of its samples: <v, J^T u> must equal the central difference of <u, f(x + t v)>.
// Walks the registry; no op is named here.
import { describe, expect, test } from "vitest";
import { evalOp, interpret } from "#lib/ir/interpret.js";
import { buffer, emit, store, trace } from "#lib/ir/graph.js";
import { vjp } from "#lib/ir/vjp.js";
import { size } from "#lib/ir/types.js";
import { forwardCases, normals } from "./material.ts";

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((s, x, i) => s + x * b[i]!, 0);

describe("gradients against central differences, float64", () => {
  const checked = forwardCases().filter((c) => c.def.grad);
  test("most ops of the registry have one", () => expect(new Set(checked.map((c) => c.def.name)).size).toBeGreaterThan(15));

  test.each(checked)("$title", ({ def, types, attrs, x }) => {
    const outs = Object.keys(def.infer({ ...types }, attrs)).filter((o) => !def.stats.includes(o));
    const wrt = Object.keys(types).filter((k) => types[k]!.dtype !== "int32" && !def.constant.includes(k));
    const outTypes = def.infer({ ...types }, attrs);
    const u = Object.fromEntries(outs.map((o, i) => [o, normals(size(outTypes[o]!), 31 + i)]));
    const g = trace(() => {
      const ins = Object.fromEntries(Object.entries(types).map(([k, t]) => [k, buffer(k, t)]));
      const y = emit(def, ins, attrs);
      const d = vjp(outs.map((o) => [y[o]!, buffer(`u.${o}`, y[o]!.type)] as const), wrt.map((k) => ins[k]!));
      d.forEach((v, i) => void (v && store(`=${wrt[i]!}`, v)));
    });
    const grads = interpret(g, new Map([...Object.entries(x), ...outs.map((o) => [`u.${o}`, u[o]!] as const)]));
    for (const k of wrt) {
      const v = normals(x[k]!.length, 7);
      const at = (t: number): number => {
        const y = evalOp(def, { ...x, [k]: x[k]!.map((e, i) => e + t * v[i]!) }, types, attrs);
        return outs.reduce((s, o) => s + dot(u[o]!, y[o]!), 0);
      };
      const h = 1e-5;
      const numeric = (at(h) - at(-h)) / (2 * h);
      const analytic = grads.has(`=${k}`) ? dot(grads.get(`=${k}`)!, v) : 0;
      expect(Math.abs(analytic - numeric), `d ${k}: analytic ${analytic}, numeric ${numeric}`).toBeLessThanOrEqual(2e-6 * (Math.abs(numeric) + Math.sqrt(x[k]!.length)));
    }
  });
});
