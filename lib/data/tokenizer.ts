// The tokenizer of a Hugging Face model folder: tokenizer.json through the `tokenizers` library, set up as transformers sets it up
// (special tokens of tokenizer_config.json and special_tokens_map.json, add_bos_token, no stored padding or truncation), and the folder's chat templates.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AddedToken, Tokenizer as Backend, templateProcessing } from "tokenizers";
import { DataError } from "../errors.ts";
import { JsonError, parseJson } from "./json.ts";
import type { Json, JsonObject } from "./json.ts";

const NAMED = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] as const;
const MAX_FILE = 256 * 1024 * 1024;

/** Ids of a text and the way from its characters to its tokens. */
export interface Encoded {
  readonly ids: readonly number[];
  /** Token that holds the character, counted in code points from 0; null where none does. */
  tokenAt(codePoint: number): number | null;
}

export interface EncodeInput {
  readonly text: string;
  /** True: the tokenizer adds what its post-processor adds (BOS), as for plain text. False: nothing, as after a chat template. */
  readonly special: boolean;
}

export interface Tokenizer {
  /** Number of ids, added tokens included. */
  readonly size: number;
  /** Named special tokens (`bos_token`, ...) as chat templates get them. */
  readonly special: ReadonlyMap<string, string>;
  /** Every special token: text -> id. */
  readonly specialIds: ReadonlyMap<string, number>;
  readonly bos: number | null;
  readonly eos: number | null;
  /** The folder's templates by name; most have `default` alone, some none. */
  readonly templates: ReadonlyMap<string, string>;
  /** SHA-256 over everything here that changes tokens. */
  readonly hash: string;
  encode(inputs: readonly EncodeInput[]): Promise<Encoded[]>;
  /** Text of ids, special tokens included unless `skipSpecial`. */
  decode(ids: ArrayLike<number>, skipSpecial?: boolean): Promise<string>;
  /** The token itself, as the vocabulary spells it; null for an unknown id. */
  idToToken(id: number): string | null;
  tokenToId(token: string): number | null;
}

interface Special {
  readonly content: string;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly singleWord: boolean;
  readonly normalized: boolean;
}

/** Loads the tokenizer of a folder. Errors: DataError that names the file. Blocks while the file is parsed: call it in a worker for large vocabularies. */
export function loadTokenizer(folder: string): Tokenizer {
  const file = join(folder, "tokenizer.json");
  if (!existsSync(file)) {
    const other = ["tokenizer.model", "spiece.model", "vocab.json"].find((f) => existsSync(join(folder, f)));
    const got = other ? `${other} alone (convert it: AutoTokenizer.from_pretrained(dir).save_pretrained(dir))` : "none";
    throw new DataError(`${folder}: a tokenizer folder must hold tokenizer.json, got ${got}`);
  }
  const text = readText(file);
  const config = readObject(join(folder, "tokenizer_config.json"));
  const map = readObject(join(folder, "special_tokens_map.json"));
  const templates = readTemplates(folder, config);
  return buildTokenizer(text, config, map, templates, file);
}

function buildTokenizer(
  text: string,
  config: JsonObject,
  map: JsonObject,
  templates: ReadonlyMap<string, string>,
  file: string,
): Tokenizer {
  let backend: Backend;
  try {
    backend = Backend.fromString(text);
  } catch (e) {
    throw new DataError(`${file}: must be a file of the tokenizers library, got ${(e as Error).message}`, { cause: e });
  }
  backend.disableTruncation();
  backend.disablePadding();
  const document = JSON.parse(text) as {
    added_tokens?: { content: string; special: boolean }[];
    post_processor?: unknown;
  };
  const added = new Map((document.added_tokens ?? []).map((t) => [t.content, t.special]));
  const named = new Map<string, Special>();
  for (const name of NAMED) {
    const token = readSpecial(config.has(name) ? config.get(name) : map.get(name), `${name} of ${file}`);
    if (token) named.set(name, token);
  }
  const extra = [...listed(config, map, "additional_special_tokens"), ...listed(config, map, "extra_special_tokens")];
  const decoder = config.get("added_tokens_decoder");
  const more: { token: Special; special: boolean }[] = [];
  if (decoder instanceof Map) {
    for (const [, v] of [...decoder].sort(([a], [b]) => Number(a) - Number(b))) {
      const token = readSpecial(v, `added_tokens_decoder of ${file}`);
      if (token) more.push({ token, special: v instanceof Map && v.get("special") === true });
    }
  }
  for (const token of [...named.values(), ...extra]) more.push({ token, special: true });
  for (const { token: t, special } of more) {
    if (added.get(t.content) ?? false) continue;
    if (added.has(t.content) && !special) continue;
    const { lstrip: leftStrip, rstrip: rightStrip, singleWord, normalized } = t;
    backend.addAddedTokens([new AddedToken(t.content, special, { leftStrip, rightStrip, singleWord, normalized })]);
    added.set(t.content, special);
  }
  const id = (name: string): number | null => {
    const token = named.get(name);
    return token ? backend.tokenToId(token.content) : null;
  };
  const post = postProcessor(
    config,
    named,
    id,
    document.post_processor === null || document.post_processor === undefined,
  );
  if (post) backend.setPostProcessor(templateProcessing(...post));

  const specialIds = new Map<string, number>();
  for (const [content, special] of added) {
    const at = special ? backend.tokenToId(content) : null;
    if (at !== null) specialIds.set(content, at);
  }
  const specialTexts = new Map([...named].map(([name, t]) => [name, t.content]));
  const hash = createHash("sha256").update(text);
  hash.update(JSON.stringify([[...specialTexts], [...added], post ?? null]));
  return {
    size: backend.getVocabSize(true),
    special: specialTexts,
    specialIds,
    bos: id("bos_token"),
    eos: id("eos_token"),
    templates,
    hash: hash.digest("hex"),
    idToToken: (i) => backend.idToToken(i),
    tokenToId: (t) => backend.tokenToId(t),
    decode: (ids, skipSpecial = false) => backend.decode(Array.from(ids), skipSpecial),
    async encode(inputs) {
      const out: Encoded[] = new Array(inputs.length);
      for (const special of [false, true]) {
        const at = inputs.flatMap((input, i) => (input.special === special ? [i] : []));
        if (at.length === 0) continue;
        const batch = await backend.encodeBatch(
          at.map((i) => inputs[i]!.text),
          { addSpecialTokens: special },
        );
        batch.forEach((e, k) => (out[at[k]!] = { ids: e.getIds(), tokenAt: (c) => e.charToToken(c) ?? null }));
      }
      return out;
    },
  };
}

/**
 * The post-processor that transformers 5 puts in place of the file's: BOS and EOS around a text as `add_bos_token` and `add_eos_token` say, when
 * either is in tokenizer_config.json. Null: the file's own stays.
 */
function postProcessor(
  config: JsonObject,
  named: ReadonlyMap<string, Special>,
  id: (name: string) => number | null,
  none: boolean,
): [string, string, [string, number][]] | null {
  if (none && !config.get("add_bos_token") && !config.get("add_eos_token")) return null;
  if (!config.has("add_bos_token") && !config.has("add_eos_token")) return null;
  const bos = config.get("add_bos_token") === true ? named.get("bos_token")?.content : undefined;
  const eos = config.get("add_eos_token") === true ? named.get("eos_token")?.content : undefined;
  const single = [bos, "$A", eos].filter((x) => x !== undefined).join(" ");
  const tokens: [string, number][] = [];
  if (bos !== undefined) tokens.push([bos, id("bos_token")!]);
  if (eos !== undefined && eos !== bos) tokens.push([eos, id("eos_token")!]);
  return [single, `${single} $B:1`, tokens];
}

function readSpecial(value: Json | undefined, where: string): Special | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "string")
    return value === "" ? null : { content: value, lstrip: false, rstrip: false, singleWord: false, normalized: false };
  const content = value instanceof Map ? value.get("content") : undefined;
  if (!(value instanceof Map) || typeof content !== "string")
    throw new DataError(`${where}: a token must be a string or an object with "content"`);
  if (content === "") return null;
  const flag = (name: string): boolean => value.get(name) === true;
  return {
    content,
    lstrip: flag("lstrip"),
    rstrip: flag("rstrip"),
    singleWord: flag("single_word"),
    normalized: flag("normalized"),
  };
}

function listed(config: JsonObject, map: JsonObject, name: string): Special[] {
  const value = config.get(name) ?? map.get(name);
  const items = Array.isArray(value) ? value : value instanceof Map ? [...value.values()] : [];
  return items.flatMap((v) => readSpecial(v, name) ?? []);
}

function readText(file: string): string {
  try {
    const bytes = readFileSync(file);
    if (bytes.length > MAX_FILE) throw new Error(`${bytes.length} bytes, more than ${MAX_FILE}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (e) {
    throw new DataError(`${file}: must be readable UTF-8 text, got ${(e as Error).message}`, { cause: e });
  }
}

/** A JSON object of a file, empty where the file is missing. */
function readObject(file: string): JsonObject {
  if (!existsSync(file)) return new Map();
  try {
    const value = parseJson(readText(file));
    if (value instanceof Map) return value;
    throw new JsonError("the file must hold one object", 0);
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    throw new DataError(`${file}: must be a JSON object: ${e.message}`, { cause: e });
  }
}

/** Chat templates: chat_template.jinja and additional_chat_templates/*.jinja (transformers 5), else `chat_template` of tokenizer_config.json (4), a text or a list. */
function readTemplates(folder: string, config: JsonObject): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  const inline = config.get("chat_template");
  if (typeof inline === "string") out.set("default", inline);
  else if (Array.isArray(inline)) {
    for (const item of inline) {
      const [name, template] = item instanceof Map ? [item.get("name"), item.get("template")] : [];
      if (typeof name !== "string" || typeof template !== "string")
        throw new DataError(
          `${join(folder, "tokenizer_config.json")}: chat_template must be a text or a list of {name, template}`,
        );
      out.set(name, template);
    }
  }
  const file = join(folder, "chat_template.jinja");
  const others = join(folder, "additional_chat_templates");
  if (existsSync(file)) {
    out.clear();
    out.set("default", readText(file));
  }
  if (existsSync(others))
    for (const name of readdirSync(others).sort())
      if (name.endsWith(".jinja")) out.set(name.slice(0, -".jinja".length), readText(join(others, name)));
  const legacy = join(folder, "chat_template.json");
  if (out.size === 0 && existsSync(legacy)) {
    const template = readObject(legacy).get("chat_template");
    if (typeof template === "string") out.set("default", template);
  }
  return out;
}
