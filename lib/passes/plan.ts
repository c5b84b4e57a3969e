// plan: graph -> flat program. Decides who shares whose storage, and where each storage lies in one arena.
import { pathOf } from "../ir/print.ts";
import { users, type Graph, type Node, type Value } from "../ir/graph.ts";
import { bytes, width, type Capacity } from "../ir/types.ts";
import { paramsOf } from "../program/encode.ts";
import type { Buffer, Instruction, Program, Slot } from "../program/program.ts";
import { place, type Storage } from "./place.ts";

/** Bytes of scratch that a device wants for an instruction; asked once per instruction. */
export type ScratchOf = (c: Instruction) => number;

const ALIGN = 256;
const aligned = (n: number): number => Math.ceil(n / ALIGN) * ALIGN;

export interface PlanOptions {
  scratch?: ScratchOf;
  /** For tests: forget what this node reads, a planted lifetime bug. */
  blind?: Node;
}

export interface Plan extends Program {
  readonly storages: readonly Storage[];
}

export function plan(g: Graph, options: PlanOptions = {}): Plan {
  const home = assign(g, options.blind);
  const slotOf = (v: Value): Slot => {
    const s = home.of.get(v)!;
    return { space: s.buffer === undefined ? "arena" : { buffer: s.buffer }, offset: s.offset, type: v.type };
  };
  const code = g.nodes.flatMap((n, i) => (n.def.view ? [] : [{ n, i }]));
  const scratch = code.map(({ n, i }) => {
    const want = options.scratch?.(instruction(n, slotOf, { offset: 0, bytes: 0 })) ?? 0;
    if (!want) return undefined;
    const s: Storage = { bytes: aligned(want), first: i, last: i, offset: 0, of: `${n.def.name}.scratch` };
    home.storages.push(s);
    return s;
  });
  const { arenaBytes, liveBytes } = place(home.storages, g.nodes.length);
  const instructions = code.map(({ n }, k) => instruction(n, slotOf, scratch[k] ?? { offset: 0, bytes: 0 }));
  return {
    dims: dimsOf(g),
    buffers: buffersOf(g),
    instructions,
    arenaBytes,
    liveBytes,
    scratchBytes: Math.max(0, ...scratch.map((s) => s?.bytes ?? 0)),
    storages: home.storages,
  };
}

function instruction(n: Node, slotOf: (v: Value) => Slot, scratch: { offset: number; bytes: number }): Instruction {
  const slot = (v: Value | undefined): Slot | undefined => v && slotOf(v);
  const ins = [...n.def.inputs, ...n.def.optional].map((k) => slot(n.inputs[k]));
  const outs = n.def.outputs.map((k) => slot(n.outs[k]));
  const params = paramsOf(n.def).map(([k, kind]) => (kind === "numbers" ? (n.attrs[k] as readonly number[]) : Number(n.attrs[k])));
  return { def: n.def, name: pathOf(n), slots: [...ins, ...outs], params, scratch: { offset: scratch.offset, bytes: scratch.bytes } };
}

/** The buffers that a program names, a whole before its parts. Those that it touches must not overlap: their storages are apart. */
function buffersOf(g: Graph): Map<string, Buffer> {
  const buffers = new Map<string, Buffer>();
  const readers = users(g);
  const touched: { readonly name: string; readonly within: string; readonly from: number; readonly to: number }[] = [];
  for (const [name, v] of g.buffers) {
    const { buffer, type, offset: from } = v.within ?? { buffer: name, type: v.type, offset: 0 };
    const to = from + bytes(v.type);
    if (to > bytes(type)) throw new Error(`plan: ${name} must lie within ${buffer}, got ${bytes(v.type)} bytes at ${from} of ${bytes(type)}`);
    buffers.set(buffer, type);
    if (v.within) buffers.set(name, { ...v.type, within: { buffer, offset: from } });
    if (!readers.has(v) && !g.stores.has(name)) continue;
    const other = touched.find((t) => t.within === buffer && t.from < to && from < t.to);
    if (other) throw new Error(`plan: ${name} and ${other.name} must lie apart in ${buffer}, got an overlap`);
    touched.push({ name, within: buffer, from, to });
  }
  return buffers;
}

function dimsOf(g: Graph): Capacity[] {
  const dims = new Map<string, Capacity>();
  const values = [...g.buffers.values(), ...g.nodes.flatMap((n) => Object.values(n.outs))];
  for (const d of values.flatMap((v) => v.type.shape)) {
    if (typeof d === "number") continue;
    const old = dims.get(d.name);
    if (old && old.capacity !== d.capacity) throw new Error(`plan: capacity ${d.name} is ${old.capacity} and ${d.capacity}`);
    dims.set(d.name, d);
  }
  return [...dims.values()];
}

/** Give every value a storage: its buffer, an input's place taken over, or a fresh one. */
function assign(g: Graph, blind: Node | undefined): { of: Map<Value, Storage>; storages: Storage[] } {
  const at = new Map(g.nodes.map((n, i) => [n, i]));
  const last = lastUses(g, blind);
  const of = new Map<Value, Storage>();
  const storages: Storage[] = [];
  const buffers = new Map<string, Storage>();
  for (const [name, v] of g.buffers) {
    const s: Storage = { bytes: bytes(v.type), first: -1, last: Infinity, offset: 0, of: name, buffer: name };
    buffers.set(name, s);
    of.set(v, s);
  }
  /** The input whose place output v may take, if the node reads that place through no other input: x + x.W must not overwrite x. */
  const source = (v: Value): Value | undefined => {
    const n = v.node!;
    if (n.def.view) return n.inputs[n.def.view];
    const p = n.inputs[n.def.accumulate[v.out] ?? ""] ?? n.inputs[n.def.inplace[v.out] ?? ""];
    // Rows of another width would land on rows that another thread has not read yet.
    if (!p || width[p.type.dtype] !== width[v.type.dtype] || bytes(p.type) !== bytes(v.type)) return undefined;
    const readers = Object.values(n.inputs).filter((i) => i === p || (of.get(i) !== undefined && of.get(i) === of.get(p)));
    return readers.length === 1 ? p : undefined;
  };

  for (const [name, v] of g.stores) settle(name, v);
  function settle(name: string, v: Value): void {
    const target = buffers.get(name)!;
    if (!v.node || of.has(v)) {
      if (of.get(v)?.buffer !== name) throw new Error(`store ${name}: its value lives in ${of.get(v)?.of} already, which needs a copy op`);
      return;
    }
    const chain: Value[] = [];
    const buf = g.buffers.get(name)!;
    let u: Value | undefined = v;
    while (u?.node) {
      chain.push(u);
      const p: Value | undefined = source(u);
      u = p && (last.get(p) === at.get(u.node) || u.node.def.view) ? p : undefined;
    }
    const written = throughViews(v);
    const fresh = (last.get(buf) ?? -1) < at.get(written.at(-1)!.node!)!;
    if (u === buf) for (const c of chain) of.set(c, target);
    else if (fresh && written.every((c) => !of.has(c))) for (const c of written) of.set(c, target);
    else throw new Error(`store ${name}: the old content is read after ${v.node.def.name} writes the new one`);
  }

  g.nodes.forEach((n, i) => {
    const taken = new Set<Storage>();
    for (const v of Object.values(n.outs)) {
      if (of.has(v)) continue;
      const p = source(v);
      const s = p && of.get(p);
      const end = last.get(v)!;
      if (s && n.def.view) {
        s.last = Math.max(s.last, end);
        of.set(v, s);
      } else if (s && s.buffer === undefined && s.last <= i && !taken.has(s)) {
        s.last = end;
        of.set(v, s);
        taken.add(s);
      } else {
        const own: Storage = { bytes: aligned(bytes(v.type)), first: i, last: end, offset: 0, of: `${n.def.name}.${v.out}` };
        of.set(v, own);
        storages.push(own);
      }
    }
  });
  return { of, storages };
}

/** A value and what it views, down to the one that a kernel writes. */
function throughViews(v: Value): Value[] {
  const chain = [v];
  for (let n = v.node; n?.def.view; n = chain.at(-1)!.node) chain.push(n.inputs[n.def.view]!);
  return chain;
}

/** Index of the last node that touches each value, a view's uses counted for what it views. */
function lastUses(g: Graph, blind: Node | undefined): Map<Value, number> {
  const last = new Map<Value, number>();
  g.nodes.forEach((n, i) => {
    for (const v of [...(n === blind ? [] : Object.values(n.inputs)), ...Object.values(n.outs)]) last.set(v, i);
  });
  for (const n of [...g.nodes].reverse()) {
    if (!n.def.view) continue;
    const of = n.inputs[n.def.view]!;
    const y = Object.values(n.outs)[0]!;
    last.set(of, Math.max(last.get(of) ?? -1, last.get(y)!));
  }
  return last;
}
