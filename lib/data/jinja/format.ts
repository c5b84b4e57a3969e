// Python's two ways to format text: "%s" % x and "{}".format(x), with the flags that templates use.

import { intOf } from "./arguments.ts";
import { repr, reprFloat, str } from "./print.ts";
import { pyLength } from "./text.ts";
import { TemplateError, Tuple, Undefined, listOf, numeric, typeName } from "./values.ts";
import type { Kwargs, Value } from "./values.ts";

const PERCENT = /%(?:\(([^)]*)\))?([-+ 0#]*)(\d+)?(?:\.(\d+))?([diouxXeEfFgGcrsa%])/g;
const MAX_WIDTH = 1_000_000;

interface Spec {
  readonly fill: string;
  readonly align: string;
  readonly sign: string;
  readonly width: number;
  readonly comma: boolean;
  readonly precision: number | undefined;
  readonly type: string;
}

/** The % operator on a string. Errors: TemplateError. */
export function formatPercent(text: string, right: Value): string {
  const args = right instanceof Tuple ? right.items : [right];
  let used = 0;
  let byKey = false;
  const out = text.replace(
    PERCENT,
    (_, key: string | undefined, flags: string, width?: string, precision?: string, type = "s") => {
      if (type === "%") return "%";
      let v: Value | undefined;
      if (key !== undefined) {
        byKey = true;
        v = right instanceof Map ? right.get(key) : undefined;
      } else v = args[used++];
      if (v === undefined) throw new TemplateError("not enough arguments for the format string");
      const spec: Spec = {
        fill: flags.includes("0") && !flags.includes("-") && !"rsac".includes(type) ? "0" : " ",
        align: flags.includes("-") ? "<" : flags.includes("0") && !"rsac".includes(type) ? "=" : ">",
        sign: flags.includes("+") ? "+" : flags.includes(" ") ? " " : "-",
        width: Math.min(Number(width ?? 0), MAX_WIDTH),
        comma: false,
        precision: precision === undefined ? undefined : Number(precision),
        type: type === "i" || type === "u" ? "d" : type,
      };
      if ("rsa".includes(type)) return formatText(type === "s" ? str(v) : repr(v), spec);
      return formatNumber(v, spec);
    },
  );
  // Python minds what is left of a tuple, and a lone value that is not used at all, unless it could have been read by key.
  const left =
    right instanceof Tuple
      ? args.length > used
      : used === 0 && !byKey && !(right instanceof Map) && !Array.isArray(right);
  if (left) throw new TemplateError("not all arguments converted during string formatting");
  return out;
}

/** str.format. Errors: TemplateError. */
export function formatBraces(text: string, args: readonly Value[], kwargs: Kwargs): string {
  let auto = 0;
  return text.replace(
    /\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::([^{}]*))?\}|[{}]/g,
    (whole, field?: string, conversion?: string, spec?: string) => {
      if (whole === "{{" || whole === "}}") return whole[0]!;
      if (field === undefined)
        throw new TemplateError(`a format string must have matching braces, got ${JSON.stringify(whole)}`);
      const [, base = "", path = ""] = /^([^.[]*)(.*)$/s.exec(field) ?? [];
      let v: Value | undefined =
        base === "" ? args[auto++] : /^\d+$/.test(base) ? args[Number(base)] : kwargs.get(base);
      for (const [, attribute, index] of path.matchAll(/\.([^.[]+)|\[([^\]]*)\]/g))
        v = v === undefined ? v : part(v, attribute ?? index ?? "");
      if (v === undefined) throw new TemplateError(`format(): no argument for {${field}}`);
      if (conversion) v = conversion === "s" ? str(v) : repr(v);
      return formatSpec(v, spec ?? "");
    },
  );
}

function part(v: Value, key: string): Value | undefined {
  if (v instanceof Map) return v.get(key);
  return /^\d+$/.test(key) ? listOf(v)?.[Number(key)] : undefined;
}

/** format(value, spec). */
export function formatSpec(v: Value, text: string): string {
  if (text === "") return str(v);
  const m = /^(?:([^])?([<>=^]))?([-+ ])?#?(0)?(\d+)?([,_])?(?:\.(\d+))?([bcdeEfFgGnosxX%])?$/su.exec(text);
  if (!m) throw new TemplateError(`a format must be one of Python's, got ${JSON.stringify(text)}`);
  const number = typeof v !== "string" && numeric(v) !== undefined;
  const spec: Spec = {
    fill: m[1] ?? (m[4] ? "0" : " "),
    align: m[2] ?? (m[4] && number ? "=" : number ? ">" : "<"),
    sign: m[3] ?? "-",
    width: Math.min(Number(m[5] ?? 0), MAX_WIDTH),
    comma: m[6] === ",",
    precision: m[7] === undefined ? undefined : Number(m[7]),
    type: m[8] ?? "",
  };
  return number ? formatNumber(v, spec) : formatText(str(v), spec);
}

function formatText(text: string, spec: Spec): string {
  return padded(spec.precision === undefined ? text : Array.from(text).slice(0, spec.precision).join(""), "", spec);
}

function formatNumber(v: Value, spec: Spec): string {
  const n = numeric(v);
  if (v instanceof Undefined || n === undefined)
    throw new TemplateError(`a format of a number needs a number, got ${typeName(v)}`);
  const negative = n < 0 || Object.is(n, -0);
  const sign = negative ? "-" : spec.sign === "-" ? "" : spec.sign;
  let body: string;
  const { type } = spec;
  if (type === "c") return padded(String.fromCodePoint(intOf(v, "a character")), "", { ...spec, align: "<" });
  if ("bdoxX".includes(type) && type !== "") {
    const whole = typeof n === "bigint" ? n : BigInt(Math.trunc(n));
    const base = { b: 2, d: 10, o: 8, x: 16, X: 16 }[type]!;
    body = (whole < 0n ? -whole : whole).toString(base);
    if (type === "X") body = body.toUpperCase();
  } else if (type === "" || type === "s" || type === "n") {
    const size = typeof n === "bigint" ? (n < 0n ? -n : n) : Math.abs(n);
    body =
      typeof size === "bigint"
        ? size.toString()
        : spec.precision === undefined
          ? reprFloat(size)
          : general(size, spec.precision);
  } else {
    body = real(Math.abs(Number(n)), spec.precision ?? 6, type);
  }
  if (spec.comma) body = body.replace(/^\d+/, (d) => d.replace(/\B(?=(\d{3})+$)/g, ","));
  return padded(body, sign, spec);
}

function real(x: number, precision: number, type: string): string {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "nan" : "inf";
  const places = Math.min(precision, 100);
  if (type === "%") return `${toFixedEven(x * 100, places)}%`;
  if (type === "f" || type === "F")
    return x < 1e21 ? toFixedEven(x, places) : `${BigInt(x)}${places > 0 ? `.${"0".repeat(places)}` : ""}`;
  const upper = type === "E" || type === "G";
  const out = type === "e" || type === "E" ? twoDigits(x.toExponential(places)) : general(x, precision);
  return upper ? out.toUpperCase() : out;
}

/** The decimal with `places` digits after the point nearest to a float, halves to even: toFixed, but for exact halves. */
export function toFixedEven(x: number, places: number): string {
  const up = x.toFixed(places);
  if (!Number.isFinite(x) || Math.abs(x) >= 1e21) return up;
  const exact = Math.abs(x).toFixed(Math.min(places + 20, 100));
  const digits = exact.slice(exact.indexOf(".") + 1 + places);
  if (!/^50*$/.test(digits) || !/[13579]$/.test(up)) return up;
  // toFixed went away from zero, to an odd digit: the even one is the digits cut off.
  const cut = exact.slice(0, exact.length - digits.length).replace(/\.$/, "");
  return x < 0 ? `-${cut}` : cut;
}

/** %g: as many significant digits, without zeros at the end. */
function general(x: number, precision: number): string {
  const digits = Math.min(Math.max(precision, 1), 100);
  const power = x === 0 ? 0 : Number(x.toExponential(digits - 1).split("e")[1]);
  if (power < -4 || power >= digits) return twoDigits(x.toExponential(digits - 1).replace(/\.?0+e/, "e"));
  const out = x.toFixed(Math.max(0, digits - 1 - power));
  return out.includes(".") ? out.replace(/\.?0+$/, "") : out;
}

const twoDigits = (text: string): string => text.replace(/e([+-])(\d)$/, "e$10$2");

function padded(body: string, sign: string, spec: Spec): string {
  const room = spec.width - pyLength(body) - sign.length;
  if (room <= 0) return sign + body;
  if (spec.align === "<") return sign + body + spec.fill.repeat(room);
  if (spec.align === "=") return sign + spec.fill.repeat(room) + body;
  if (spec.align === "^")
    return spec.fill.repeat(Math.floor(room / 2)) + sign + body + spec.fill.repeat(Math.ceil(room / 2));
  return spec.fill.repeat(room) + sign + body;
}
