// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). A number is a function of
// a key and a counter, so values can be made in any order, in any chunk, and there is no state.

const low16 = 0xffff;

// High 32 bits of the 64-bit product of two unsigned 32-bit numbers.
function mulHigh(a: number, b: number): number {
  const al = a & low16;
  const ah = a >>> 16;
  const bl = b & low16;
  const bh = b >>> 16;
  const middle = ah * bl + ((al * bl) >>> 16);
  const cross = al * bh + (middle & low16);
  return (ah * bh + Math.floor(middle / 65536) + Math.floor(cross / 65536)) >>> 0;
}

/** Four random 32-bit words of the counter (c0, c1, c2, c3) under the key (k0, k1), written to `out`. */
export function philox(out: Uint32Array, c0: number, c1: number, c2: number, c3: number, k0: number, k1: number): void {
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(0xd2511f53, c0);
    const high1 = mulHigh(0xcd9e8d57, c2);
    const low0 = Math.imul(0xd2511f53, c0) >>> 0;
    const low1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c1 = low1;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/**
 * Fills `out` with normal(0, deviation) values, elements start, start + 1, ... of the stream (s0, s1) under `seed`. `start` is a multiple
 * of 4. Element 4 i + k comes from counter (i low, i high, s0, s1): words 0 and 1 give elements 0 and 1 by Box and Muller, words 2 and 3 the
 * others; a word w stands for the uniform (w + 1/2) / 2^32.
 */
export function normals(
  out: Float32Array,
  start: number,
  deviation: number,
  seed: number,
  [s0, s1]: readonly [number, number],
): void {
  const words = new Uint32Array(4);
  const k0 = seed >>> 0;
  const k1 = Math.floor(seed / 2 ** 32) >>> 0;
  for (let i = 0; i < out.length; i += 4) {
    const counter = (start + i) / 4;
    philox(words, counter >>> 0, Math.floor(counter / 2 ** 32), s0, s1, k0, k1);
    for (let pair = 0; pair < 4; pair += 2) {
      const radius = deviation * Math.sqrt(-2 * Math.log((words[pair]! + 0.5) / 2 ** 32));
      const angle = (2 * Math.PI * (words[pair + 1]! + 0.5)) / 2 ** 32;
      // A write past the end of a short last chunk does nothing.
      out[i + pair] = radius * Math.cos(angle);
      out[i + pair + 1] = radius * Math.sin(angle);
    }
  }
}

/** The stream of a name: its FNV-1a hashes from two starting values. */
export function streamOf(name: string): [number, number] {
  const fnv = (hash: number): number => {
    for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
    return hash >>> 0;
  };
  return [fnv(0x811c9dc5), fnv(0x050c5d1f)];
}
