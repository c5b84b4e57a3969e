import { readFileSync } from "node:fs";
import { parseJson } from "./dist/data/json.js";
import { ChatTemplate, templateDate } from "./dist/data/template.js";
const d = parseJson(readFileSync("test/fixtures/data/jinja.json","utf8")); const vars=d.get("vars");
let ok=0,bad=0;
for (const c of d.get("cases")) {
  let r; const src=c.get("template");
  try { const t=new ChatTemplate({sources:new Map([["default",src]]),special:new Map(),date:templateDate("2026-07-06")}); r=t.render({messages:[],kwargs:vars}); }
  catch(e) { if(c.has("error")) {ok++; continue;} bad++; console.log("THREW", JSON.stringify(src), e.message, "| want", JSON.stringify(c.get("text"))); continue; }
  if (c.has("error")) { bad++; console.log("NO THROW", JSON.stringify(src), JSON.stringify(r.text), c.get("error")); continue; }
  const sp=JSON.stringify(r.spans), want=JSON.stringify((c.get("spans")??[]).map(x=>x.map(Number)));
  if (r.text!==c.get("text") || sp!==want) { bad++; console.log("DIFF", JSON.stringify(src), "\n   got ", JSON.stringify(r.text), sp, "\n   want", JSON.stringify(c.get("text")), want); } else ok++;
}
console.log({ok,bad});
