import { readFileSync } from "node:fs";
import { parseJson } from "./dist/data/json.js";
import { ChatTemplate, templateDate } from "./dist/data/template.js";
import { loadTokenizer } from "./dist/data/tokenizer.js";
const d = parseJson(readFileSync("/tmp/dr/broad.json","utf8"));
const tok = loadTokenizer("/tmp/dr/tinybos");
const T = new Map(); const bad = new Map(); let ok=0, errs=0, bads=0, extra=0;
const note=(k,v)=>{bads++; if(!bad.has(k)) bad.set(k,[]); bad.get(k).push(v)};
console.time("t");
for (const c of d.get("cases")) {
  const f=c.get("file");
  let t=T.get(f);
  if(t===undefined){ try { t=new ChatTemplate({sources:new Map([["default",d.get("templates").get(f)]]),special:tok.special,date:templateDate("2026-07-26")}); } catch(e) { t=null; console.log("PARSE",f,e.message); } T.set(f,t); }
  if(!t) continue;
  let r; try { r=t.render({messages:c.get("messages"),tools:c.get("tools"),kwargs:c.get("kw"),addGenerationPrompt:c.get("gp")}); } catch(e) {
    if (c.has("error")) { errs++; continue; }
    note(f+": threw "+e.message.slice(0,150), c.get("conv")); continue; }
  if (c.has("error")) { extra++; note(f+": did not throw "+c.get("error").slice(0,100), c.get("conv")); continue; }
  if (r.text!==c.get("text")) { let i=0; const e=c.get("text"); while(r.text[i]===e[i]) i++; note(f+": text", c.get("conv")+" at "+i+" "+JSON.stringify(r.text.slice(i-20,i+30))+" / "+JSON.stringify(e.slice(i-20,i+30))); continue; }
  const [e]=await tok.encode([{text:r.text,special:false}]);
  if (JSON.stringify(e.ids)!==JSON.stringify(c.get("ids").map(Number))) { note("ids",f); continue; }
  const mask=c.get("mask"); if(mask){ const m=e.ids.map(()=>0); for(const [a,b] of r.spans){ if(a===b) continue; const s=e.tokenAt(a), x=e.tokenAt(b-1); for(let k=s;k<=x;k++) m[k]=1; } if(m.join()!==mask.join()) { note(f+": mask",c.get("conv")); continue; } }
  ok++;
}
console.timeEnd("t");
console.log({ok,errs,bads});
for(const [k,v] of bad) console.log(k, v.length, v.slice(0,2));
