// The perplexity of each row of a data set under a model, and of the whole.
//
//     node examples/score.mjs MODEL ROWS        rows: {"text"}, {"prompt", "completion"} or {"input_ids"}, as JSONL
import { scoreRows } from "attune";

const [model, data] = process.argv.slice(2);
if (!model || !data) {
  console.error("usage: node examples/score.mjs MODEL ROWS");
  process.exit(2);
}

let [logp, tokens] = [0, 0];
for await (const row of scoreRows({ model, data })) {
  console.log(`row ${row.row}  tokens ${row.logps.length}  perplexity ${Math.exp(-row.logp / row.logps.length).toFixed(2)}`);
  logp += row.logp;
  tokens += row.logps.length;
}
console.log(`all  tokens ${tokens}  perplexity ${Math.exp(-logp / tokens).toFixed(2)}`);
