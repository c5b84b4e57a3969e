// place: storages with lifetimes -> offsets in one arena. Largest first, into the smallest gap that fits.

export interface Storage {
  bytes: number;
  /** First and last node that touches it. */
  first: number;
  last: number;
  offset: number;
  /** What it holds, for messages. */
  readonly of: string;
  /** The named buffer it is, if it is one. */
  readonly buffer?: string;
}

export function place(storages: readonly Storage[], nodes: number): { arenaBytes: number; liveBytes: number } {
  const placed: Storage[] = [];
  let arenaBytes = 0;
  for (const s of [...storages].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    let best = -1;
    let gap = Infinity;
    let edge = 0;
    const beside = placed.filter((p) => p.first <= s.last && s.first <= p.last).sort((a, b) => a.offset - b.offset);
    for (const o of beside) {
      const room = o.offset - edge;
      if (room >= s.bytes && room < gap) {
        best = edge;
        gap = room;
      }
      edge = Math.max(edge, o.offset + o.bytes);
    }
    s.offset = best < 0 ? edge : best;
    arenaBytes = Math.max(arenaBytes, s.offset + s.bytes);
    placed.push(s);
  }
  return { arenaBytes, liveBytes: mostAlive(storages, nodes) };
}

function mostAlive(storages: readonly Storage[], nodes: number): number {
  const change = new Float64Array(nodes + 1);
  for (const s of storages) {
    change[s.first]! += s.bytes;
    if (s.last + 1 <= nodes) change[s.last + 1]! -= s.bytes;
  }
  let alive = 0;
  let most = 0;
  for (const d of change) most = Math.max(most, (alive += d));
  return most;
}

/** Independent of how `place` worked: no two storages that are alive together may overlap. */
export function checkPlaces(storages: readonly Storage[]): void {
  storages.forEach((a, i) => {
    for (const b of storages.slice(i + 1))
      if (a.first <= b.last && b.first <= a.last && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes)
        throw new Error(`plan: ${a.of} and ${b.of} overlap in the arena`);
  });
}
