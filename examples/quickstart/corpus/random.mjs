// Seeded random choices and template filling: everything the corpus needs to come out the same on every machine.

/** A generator of numbers in [0, 1) from a 32-bit seed (mulberry32). */
export function createRandom(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  const shuffle = (list) => {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = below(i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  };
  /** `n` different entries, in random order. */
  const sample = (list, n) => shuffle(list).slice(0, n);
  return { next, below, pick, shuffle, sample, chance: (p) => next() < p };
}

/**
 * Fill `{key}` and `{key.field}` from `bindings`; `{^key}` starts with a capital. A list stands for a random entry of it.
 * Throws on a key that nothing binds, so a misspelt template never reaches the corpus.
 */
export function fill(template, bindings, random) {
  return template.replace(/\{(\^?)([A-Za-z]+)(?:\.([a-z]+))?\}/g, (whole, capital, key, field) => {
    let value = bindings[key];
    if (Array.isArray(value)) value = random.pick(value);
    if (field !== undefined) value = value?.[field];
    else if (typeof value === "object") value = value.name;
    if (typeof value !== "string") throw new Error(`template: ${whole} must be bound, in "${template}"`);
    return capital ? value[0].toUpperCase() + value.slice(1) : value;
  });
}
