// Each preference loss against its paper's formula, written out in plain numbers.
import { expect, test } from "vitest";
import "#lib/ops/index.js";
import { buffer, store, trace } from "#lib/ir/graph.js";
import { interpret } from "#lib/ir/interpret.js";
import { type } from "#lib/ir/types.js";
import { preferenceLosses, type PreferenceLossType } from "#lib/losses/preference.js";

const pairs = {
  chosen: [-12.5, -3, -40.25, -7],
  rejected: [-14, -2.5, -38, -7],
  refChosen: [-13, -3.25, -39.5, -7],
  refRejected: [-13.5, -2.75, -39, -7],
  chosenLength: [5, 2, 17, 3],
  rejectedLength: [6, 1, 16, 3],
};
const beta = 0.3;
const smoothing = 0.1;
const logSigmoid = (x: number): number => -Math.log(1 + Math.exp(-x));
/** Log-ratios of policy to reference for pair i. */
const ratios = (i: number): [number, number] => [pairs.chosen[i]! - pairs.refChosen[i]!, pairs.rejected[i]! - pairs.refRejected[i]!];

const formulas: Record<PreferenceLossType, (i: number) => number> = {
  sigmoid: (i) => {
    const delta = beta * (ratios(i)[0] - ratios(i)[1]);
    return -(1 - smoothing) * logSigmoid(delta) - smoothing * logSigmoid(-delta);
  },
  ipo: (i) => (ratios(i)[0] / pairs.chosenLength[i]! - ratios(i)[1] / pairs.rejectedLength[i]! - 1 / (2 * beta)) ** 2,
  hinge: (i) => Math.max(0, 1 - beta * (ratios(i)[0] - ratios(i)[1])),
};

test.each(Object.keys(preferenceLosses) as PreferenceLossType[])("%s", (name) => {
  const names = Object.keys(pairs) as (keyof typeof pairs)[];
  const graph = trace(() => {
    const x = Object.fromEntries(names.map((n) => [n, buffer(`inputs/${n}`, type([4]))])) as Record<keyof typeof pairs, ReturnType<typeof buffer>>;
    store("outputs/loss", preferenceLosses[name](x, { beta, labelSmoothing: smoothing }));
  });
  const loss = interpret(graph, new Map(names.map((n) => [`inputs/${n}`, Float64Array.from(pairs[n])]))).get("outputs/loss")!;
  expect(loss.length).toBe(4);
  loss.forEach((value, i) => expect(value).toBeCloseTo(formulas[name](i), 12));
});
