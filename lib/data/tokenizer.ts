// The tokenizer of a Hugging Face model folder: tokenizer.json through the `tokenizers` library, set up as transformers sets it up
// (special tokens of tokenizer_config.json and special_tokens_map.json, no stored padding or truncation), and the folder's chat templates.
// What is put around a plain text (BOS) is the post-processor of tokenizer.json; add_bos_token beside it is ignored, as in transformers 5.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { AddedToken, Tokenizer as Backend } from "tokenizers";
import { DataError, whyUnread } from "../errors.ts";
import { JsonError, kindOf, parseJson } from "./json.ts";
import type { Json, JsonObject } from "./json.ts";

const STANDARD = new Set(["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]);
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
    const is = statSync(folder, { throwIfNoEntry: false });
    if (!is?.isDirectory())
      throw new DataError(`${folder}: must be a folder with tokenizer.json, got ${is ? "a file" : "no such folder"}`);
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

/** What is read of tokenizer.json here; the library has checked the rest. */
interface TokenizerFile {
  readonly model?: { readonly continuing_subword_prefix?: unknown; readonly merges?: unknown; readonly vocab?: unknown } | null;
  readonly added_tokens?: { content: string; special: boolean }[];
  readonly post_processor?: unknown;
}

/** What the library (tokenizers 0.23, BPE) ends the process on instead of saying so: merges that lack the model's prefix, or make no token. */
function checkMerges(model: TokenizerFile["model"], file: string): void {
  const { continuing_subword_prefix: given, merges, vocab } = model ?? {};
  if (!Array.isArray(merges) || typeof vocab !== "object" || vocab === null) return;
  const prefix = typeof given === "string" ? given : "";
  for (const [i, merge] of (merges as unknown[]).entries()) {
    const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    const [first, second] = Array.isArray(pair) ? (pair as unknown[]) : [];
    if (typeof first !== "string" || typeof second !== "string") continue; // said by the library
    const whole = first + second.slice(prefix.length);
    if (second.startsWith(prefix) && Object.hasOwn(vocab, whole)) continue;
    const must = second.startsWith(prefix) ? "each must make a token of the vocabulary" : `the second part of each must begin with continuing_subword_prefix ${JSON.stringify(prefix)}`;
    throw new DataError(`${file}: model.merges: ${must}, got ${JSON.stringify([first, second])} as merge ${i} (is the download whole?)`);
  }
}

function buildTokenizer(
  text: string,
  config: JsonObject,
  map: JsonObject,
  templates: ReadonlyMap<string, string>,
  file: string,
): Tokenizer {
  let document: TokenizerFile;
  let backend: Backend;
  try {
    document = JSON.parse(text) as TokenizerFile; // the library lets some through that are no JSON
    checkMerges(document?.model, file);
    backend = Backend.fromString(text);
  } catch (e) {
    if (e instanceof DataError) throw e;
    throw new DataError(
      `${file}: must be a file of the tokenizers library, got an error: ${(e as Error).message} (is the download whole?)`,
      { cause: e },
    );
  }
  backend.disableTruncation();
  backend.disablePadding();
  const added = new Map((document.added_tokens ?? []).map((t) => [t.content, t.special]));
  // As transformers 5: special_tokens_map.json is read only beside a config without added_tokens_decoder, and then wins.
  const decoder = config.get("added_tokens_decoder");
  const settings = decoder instanceof Map ? config : new Map([...config, ...map]);
  if (settings.get("split_special_tokens") === true)
    throw new DataError(`${file}: split_special_tokens must be false, got true (text would never make a special token)`);
  const { named, extra } = namedTokens(settings, file);
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

  const specialIds = new Map<string, number>();
  for (const [content, special] of added) {
    const at = special ? backend.tokenToId(content) : null;
    if (at !== null) specialIds.set(content, at);
  }
  const specialTexts = new Map([...named].map(([name, t]) => [name, t.content]));
  const hash = createHash("sha256").update(text);
  hash.update(JSON.stringify([[...specialTexts], [...added]]));
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
      const out: Encoded[] = [];
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

/** Special tokens by name (`bos_token`, any other `..._token`, and the entries of an `extra_special_tokens` object), and those without a name. */
function namedTokens(settings: JsonObject, file: string): { named: Map<string, Special>; extra: Special[] } {
  const named = new Map<string, Special>();
  const extra: Special[] = [];
  const name = (key: string, value: Json): void => {
    const token = readSpecial(value, `${key} of ${file}`);
    if (token) named.set(key, token);
  };
  for (const [key, value] of settings)
    if (key.endsWith("_token") && (STANDARD.has(key) || typeof value === "string" || value instanceof Map))
      name(key, value);
  for (const key of ["extra_special_tokens", "additional_special_tokens"]) {
    const value = settings.get(key);
    if (value instanceof Map) for (const [k, v] of value) name(k, v);
    else if (Array.isArray(value)) extra.push(...value.flatMap((v) => readSpecial(v, `${key} of ${file}`) ?? []));
  }
  return { named, extra };
}

function readSpecial(value: Json | undefined, where: string): Special | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "string")
    return value === "" ? null : { content: value, lstrip: false, rstrip: false, singleWord: false, normalized: false };
  const content = value instanceof Map ? value.get("content") : undefined;
  if (!(value instanceof Map) || typeof content !== "string")
    throw new DataError(`${where}: a token must be a string or an object with "content", got ${kindOf(value)}`);
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

function readText(file: string): string {
  try {
    const bytes = readFileSync(file);
    if (bytes.length > MAX_FILE) throw new Error(`${bytes.length} bytes, more than ${MAX_FILE}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (e) {
    throw new DataError(`${file}: must be UTF-8 text that can be read, got ${e instanceof TypeError ? "other bytes" : whyUnread(e)}`, { cause: e });
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
    throw new DataError(`${file}: must be a JSON object, got an error: ${e.message}`, { cause: e });
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
          `${join(folder, "tokenizer_config.json")}: chat_template must be a text or a list of {name, template}, got another list`,
        );
      out.set(name, template);
    }
  }
  const file = join(folder, "chat_template.jinja");
  const others = join(folder, "additional_chat_templates");
  if (existsSync(file) || existsSync(others)) out.clear();
  if (existsSync(file)) {
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
