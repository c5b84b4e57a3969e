// compile: a traced graph to a program, every pass in order with the verifier between them.
import type { Graph } from "../ir/graph.ts";
import { rewrite } from "../ir/graph.ts";
import { verify } from "../ir/verify.ts";
import { foldSums } from "./fold.ts";
import { plan, type Plan, type ScratchOf } from "./plan.ts";

/** The graph as it will run: dead nodes gone, sums folded, verified. */
export function lower(g: Graph): Graph {
  return verify(foldSums(verify(rewrite(g))), { lowered: true });
}

export function compile(g: Graph, scratch?: ScratchOf): Plan {
  return plan(lower(g), scratch ? { scratch } : {});
}
