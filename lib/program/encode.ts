// Bytes of a program, as native/runtime/program.cc reads them: little-endian, every name padded to four bytes.
import { kernelOps, type AttrKind, type Cost, type OpDef } from "../ir/op.ts";
import { ShapeError } from "../errors.ts";
import { cap, type Capacity, type DType, type Type } from "../ir/types.ts";
import { isPrivate, type Instruction, type Program, type Slot } from "./program.ts";

const MAGIC = 0x314e5441; // "ATN1"
const VERSION = 2;
const dtypes: Readonly<Record<DType, number>> = { float32: 0, bfloat16: 1, int32: 2 };

/** Attributes that travel to the kernel, in order. */
export const paramsOf = (def: OpDef): [string, AttrKind][] =>
  Object.entries(def.attrs).filter(([, k]) => k === "number" || k === "boolean" || k === "numbers");

/** What an instruction costs with every capacity in use. */
export function costOf(c: Instruction): Cost {
  const { def } = c;
  const types = [...def.inputs, ...def.optional, ...def.outputs].flatMap((k, i) => (c.slots[i] ? [[k, c.slots[i].type] as const] : []));
  return def.cost(Object.fromEntries(types), Object.fromEntries(paramsOf(def).map(([k], i) => [k, c.params[i]])));
}

/** The op table as text: what both sides must agree on. */
export function tableText(): string {
  return kernelOps()
    .map((d) => `${d.name}(${[...d.inputs, ...d.optional].join()})->(${d.outputs.join()}){${paramsOf(d).map(([k, t]) => `${k}:${t}`).join()}}`)
    .join(";");
}

let hash: { readonly ops: number; readonly value: number } | undefined;
/** FNV-1a of the op table; an addon built for another table refuses the program. */
export function tableHash(): number {
  const ops = kernelOps().length; // ops are only ever added
  if (hash?.ops === ops) return hash.value;
  let value = 2166136261;
  for (const c of tableText()) value = Math.imul(value ^ c.charCodeAt(0), 16777619) >>> 0;
  hash = { ops, value };
  return value;
}

class Writer {
  private bytes = new Uint8Array(1 << 16);
  private view = new DataView(this.bytes.buffer);
  private at = 0;

  private grow(n: number): void {
    if (this.at + n <= this.bytes.length) return;
    const bigger = new Uint8Array(Math.max(this.bytes.length * 2, this.at + n));
    bigger.set(this.bytes);
    this.bytes = bigger;
    this.view = new DataView(bigger.buffer);
  }
  u32(v: number): void {
    this.grow(4);
    this.view.setUint32(this.at, v, true);
    this.at += 4;
  }
  /** A dimension: kernels count in 32 bits. */
  size(v: number): void {
    if (v >= 2 ** 31) throw new ShapeError(`program: a dimension must be below 2^31, got ${v}`);
    this.u32(v);
  }
  u64(v: number): void {
    this.u32(v % 2 ** 32);
    this.u32(Math.floor(v / 2 ** 32));
  }
  f64(v: number): void {
    this.grow(8);
    this.view.setFloat64(this.at, v, true);
    this.at += 8;
  }
  text(s: string): void {
    const raw = new TextEncoder().encode(s);
    this.u32(raw.length);
    const padded = Math.ceil(raw.length / 4) * 4;
    this.grow(padded);
    this.bytes.set(raw, this.at);
    this.bytes.fill(0, this.at + raw.length, this.at + padded);
    this.at += padded;
  }
  done(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(0, this.at);
  }
}

function writeType(w: Writer, t: Type, dims: readonly Capacity[]): void {
  w.u32(dtypes[t.dtype]);
  w.u32(t.shape.length);
  for (const d of t.shape) {
    w.size(cap(d));
    w.u32(typeof d === "number" ? 0 : dims.findIndex((x) => x.name === d.name) + 1);
  }
}

function writeInstruction(w: Writer, c: Instruction, dims: readonly Capacity[], space: (s: Slot) => number, opcode: (d: OpDef) => number): void {
  w.u32(opcode(c.def));
  w.u32(c.slots.length);
  for (const s of c.slots) {
    w.u32(s ? space(s) : 0);
    w.u32(0);
    w.u64(s?.offset ?? 0);
    if (s) writeType(w, s.type, dims);
  }
  w.u64(c.scratch.offset);
  w.u64(c.scratch.bytes);
  w.u32(c.params.reduce<number>((n, p) => n + (typeof p === "number" ? 1 : 1 + p.length), 0));
  for (const p of c.params) {
    if (typeof p === "number") w.f64(p);
    else {
      w.u64(p.length);
      p.forEach((v) => w.f64(v));
    }
  }
  w.text(c.name);
}

function opcodes(): (d: OpDef) => number {
  const codes = new Map(kernelOps().map((d, i) => [d.name, i]));
  return (d) => {
    const code = codes.get(d.name);
    if (code === undefined) throw new Error(`encode: ${d.name} has no kernel`);
    return code;
  };
}

export function encode(p: Program): Uint8Array<ArrayBuffer> {
  const w = new Writer();
  const names = [...p.buffers.keys()];
  const index = new Map(names.map((n, i) => [n, i]));
  const space = (s: Slot): number => (s.space === "arena" ? 1 : 2 + index.get(s.space.buffer)!);
  const opcode = opcodes();
  for (const v of [MAGIC, VERSION, tableHash(), p.dims.length, names.length, p.instructions.length]) w.u32(v);
  w.u64(p.arenaBytes);
  for (const d of p.dims) {
    w.size(d.capacity);
    w.text(d.name);
  }
  for (const [name, t] of p.buffers) {
    w.u32((isPrivate(name) ? 1 : 0) | (name.startsWith("weights/") ? 2 : 0) | (t.within ? 4 : 0));
    w.text(name);
    writeType(w, t, p.dims);
    if (!t.within) continue;
    w.u32(index.get(t.within.buffer)!);
    w.u64(t.within.offset);
  }
  for (const c of p.instructions) writeInstruction(w, c, p.dims, space, opcode);
  return w.done();
}

/** One instruction at its capacities, for a device to say how much scratch it needs. */
export function encodeOne(c: Instruction): Uint8Array {
  const w = new Writer();
  const plain = c.slots.map((s) => s && { ...s, space: "arena" as const, offset: 0, type: { ...s.type, shape: s.type.shape.map(cap) } });
  writeInstruction(w, { ...c, slots: plain }, [], () => 1, opcodes());
  return w.done();
}
