// float32 values as the bytes of a checkpoint dtype, rounded to nearest, ties to even, as PyTorch rounds.
import type { WeightDtype } from "../models/config.ts";

/** Little-endian bytes of `values` in `dtype`. */
export function floatBytes(values: Float32Array, dtype: WeightDtype): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bytes = new Uint8Array(values.length * (dtype === "float32" ? 4 : 2));
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < bits.length; i++) {
    if (dtype === "float32") view.setUint32(4 * i, bits[i]!, true);
    else view.setUint16(2 * i, dtype === "bfloat16" ? bfloat16(bits[i]!) : float16(bits[i]!), true);
  }
  return bytes;
}

/** bfloat16 bits of a float32's bits. */
export function bfloat16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40; // a NaN stays one
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** float16 bits of a float32's bits; what is too large becomes infinity. */
export function float16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00; // NaN
  if (size >= 0x47800000) return sign | 0x7c00; // 65536 and above
  if (size < 0x38800000) {
    // Subnormal: the value in units of 2^-24, which is exact in a double before it is rounded.
    const exponent = size >>> 23;
    if (exponent < 102) return sign; // below 2^-25
    return sign | roundEven(((size & 0x7fffff) | 0x800000) / 2 ** (126 - exponent));
  }
  // The carry of a rounded mantissa runs into the exponent, up to infinity, as it should.
  return sign | ((size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13);
}

function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
