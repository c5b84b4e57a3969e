// results.md of the GPU command: what ran and how it ended, then figures beside their peers.
const cell = (x) => String(x ?? "").replaceAll("|", "\\|").replaceAll("\n", " ");
const table = (head, rows) => [head, head.map(() => "---"), ...rows].map((r) => `| ${r.map(cell).join(" | ")} |`).join("\n");
const near = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));

/** Peers' rows that agree with all that `match` names. */
const peersOf = (match, rows) => rows.filter((r) => r.peer && r.figures && Object.entries(match).every(([k, v]) => (r.figures[k] ?? r[k]) === v));
const speed = ({ tokens_per_second: tokens, pairs_per_second: pairs }) => pairs ?? tokens;

function compared(rows) {
  return rows.filter((r) => r.match && r.figures).flatMap((r) => {
    const f = r.figures;
    const timed = f.median_ms !== undefined;
    const mine = timed ? `${near(f.median_ms)} ms, ${near(f.gflops_per_second / 1000)} TFLOP/s, ${near(f.gb_per_second)} GB/s` : `${near(speed(f))} ${f.pairs_per_second ? "pairs/s" : "tokens/s"}`;
    const peers = peersOf(r.match, rows);
    if (!peers.length) return [[r.part, mine, "none", "", ""]];
    return peers.map((p) => {
      const ratio = timed ? p.figures.median_ms / f.median_ms : speed(f) / speed(p.figures);
      const theirs = timed ? `${near(p.figures.median_ms)} ms` : near(speed(p.figures));
      return [r.part, mine, `${p.figures.peer ?? p.part}: ${theirs}`, `${ratio.toFixed(2)}x`, ratio >= 1 ? "faster" : "slower"];
    });
  });
}

/** The rows as Markdown; a part that ran twice (--from) counts as it went last. */
export function report(all, here, options) {
  const starts = new Map();
  all.forEach((r, i) => r.end && starts.set(r.part, i));
  const before = (part) => all.slice(0, starts.get(part)).findLastIndex((r) => r.end && r.part === part);
  const rows = all.filter((r, i) => i > before(r.part));
  const ends = rows.filter((r) => r.end);
  const facts = Object.entries(here).filter(([, v]) => v).map(([k, v]) => `${k}: ${v}`).join(", ");
  const steps = rows.filter((r) => r.figures?.worst);
  const figures = compared(rows);
  const fails = rows.filter((r) => r.verdict === "FAIL" && !r.end);
  return [
    `# ${here.gpu}`, "", "```sh", `sh gpu.sh --out DIR ${options}`, "```", "", `${facts}.`, "",
    `${ends.filter((r) => r.verdict === "ok").length} of ${ends.length} parts ok.`, "",
    ...(figures.length ? ["## Beside PyTorch", "", table(["part", "figure", "peer", "ratio", "verdict"], figures), ""] : []),
    ...(steps.length ? ["## Beside the CPU, ten steps", "", table(["part", "worst relative difference of loss and gradient norm", "of the weights", "allowed", "twice the same bits", "verdict"], steps.map((r) => [r.part, r.figures.worst.toExponential(1), r.figures.weights.toExponential(1), r.figures.allowed, r.figures.same_bits ? "yes" : "NO", r.figures.verdict])), ""] : []),
    ...(fails.length ? ["## Failed", "", ...fails.map((r) => `- ${r.part}: ${r.says}`), ""] : []),
    "## Parts", "", table(["part", "seconds", "verdict", "last line"], ends.map((r) => [r.part, r.seconds?.toFixed(1), r.verdict, r.says])), "",
  ].join("\n");
}
