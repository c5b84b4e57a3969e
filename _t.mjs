import { prepare } from "./dist/data/dataset.js";
import { readFileSync } from "node:fs";
const fx = process.argv[2] ?? "/tmp/dr/tiny", pre = process.argv[3] ?? "out";
for (const [task, f, o, out] of [["sft","sft.jsonl",{assistantOnlyLoss:true},"sft_sft.jsonl_512_assistant"],["sft","sft.jsonl",{},"sft_sft.jsonl_512"],["sft","sft-pc.jsonl",{},"sft_sft-pc.jsonl_512"],["dpo","dpo.jsonl",{},"dpo_dpo.jsonl_512"],["dpo","dpo-str.jsonl",{},"dpo_dpo-str.jsonl_512"]]) {
  const ref = JSON.parse(readFileSync(`/tmp/dr/${pre}-${out}.json`));
  const p = await prepare({ task, dataset: fx+"/"+f, tokenizer: fx, maxLength: 512, untrainedRows: "drop", ...o });
  let bad = 0;
  console.log(f, p.trees.length, ref.length, p.report.warnings);
  ref.forEach((r, i) => {
    const t = p.trees.at(i);
    if (t.row !== r.row) return bad++;
    const seqs = task === "sft" ? [[r.ids, r.labels.map((l,k)=>k>0&&l!==-100)]] : ["c","r"].map(k=>{ const a=r.p.concat(r[k]).slice(0,512); return [a, a.map((_,j)=>j>=Math.max(1,r.p.length))]; });
    seqs.forEach(([ids, mask], b) => {
      const mine = [...t.trunk, ...t.branches[b].ids];
      const m = mine.map(()=>false); for (const [x,y] of t.branches[b].trained) m.fill(true,x,y);
      if (JSON.stringify(mine)!==JSON.stringify(ids) || JSON.stringify(m)!==JSON.stringify(mask)) bad++;
    });
  });
  console.log("  bad", bad);
}
