// The template engine against Python's Jinja as transformers sets it up, on recorded small templates (test/fixtures/data/make_jinja.py): it prints what
// Python prints or refuses, and never prints something else. docs/decisions/0002 says what it refuses.

import { describe, expect, it } from "vitest";
import type { JsonObject } from "#lib/data/json.js";
import { ChatTemplate, templateDate } from "#lib/data/template.js";
import type { Rendering } from "#lib/data/template.js";
import { numbers, readFixture } from "./fixtures.ts";

const recorded = readFixture("jinja.json");
const vars = recorded.get("vars") as JsonObject;
const cases = recorded.get("cases") as JsonObject[];

function render(source: string, limits?: { steps: number; text: number }): Rendering {
  const options = { sources: new Map([["default", source]]), special: new Map(), date: templateDate("2026-07-06") };
  return new ChatTemplate(limits ? { ...options, limits } : options).render({ messages: [], kwargs: vars });
}

describe("Jinja as Python has it", () => {
  it("prints what Python prints, with the same generation spans, or refuses", () => {
    let refused = 0;
    for (const c of cases.filter((c) => c.has("text"))) {
      const source = c.get("template") as string;
      let got: Rendering;
      try {
        got = render(source);
      } catch (e) {
        expect((e as Error).message, source).toMatch(/^(the )?chat template.*must .*, got an error: /);
        refused++;
        continue;
      }
      expect(got.text, source).toBe(c.get("text"));
      expect(got.spans, source).toEqual(c.has("spans") ? numbers(c.get("spans")) : []);
    }
    expect(refused).toBeLessThanOrEqual(165);
  });

  const refusals: Record<string, RegExp> = {
    "{{ s.swapcase() }}":
      /s\.swapcase\(\) is not supported \(write it otherwise and name the template with chat_template_path\)/,
    "{{ l | batch(2) }}": /the filter batch is not supported/,
    "{{ i is divisibleby(7) }}": /is divisibleby with an argument .* is not supported.*, on line 1/,
    "{{ 1 < 2 < 3 }}": /a chained comparison .* is not supported/,
    "{{ '%d' % 3 }}": /% of StringValue and IntegerValue is not supported/,
    "{{ l | map('upper') }}": /printing a .* that is not made a list is not supported/,
    "{{ big + 1 }}": /integers past 2\^53 is not supported/,
    "{% raw %}x{% endraw %}": /raw/,
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}": /loop\.cycle is not supported/,
    "{{ l | join(by='a') }}": /join with other arguments than \(d, attribute\) is not supported/,
    "{{ [1 2] }}": /an operator or a comma must stand between 1 and 2/,
    "{{ missing.x }}": /missing must be defined, x is asked of it/,
  };
  for (const [source, message] of Object.entries(refusals))
    it(`says what it refuses: ${source}`, () => expect(() => render(source)).toThrow(message));

  it("fails where Python fails", () => {
    for (const c of cases.filter((c) => c.has("error"))) {
      const source = c.get("template") as string;
      expect(() => render(source), `${source}: ${c.get("error")}`).toThrow();
    }
  });

  it("says on which line a template cannot be read", () => {
    expect(() => render("a\nb\n{{ ? }}")).toThrow(/chat template: must be a Jinja template.*line 3/);
  });

  it("passes on what a template raises", () => {
    expect(() => render("{{ raise_exception('roles must alternate') }}")).toThrow(/roles must alternate/);
  });

  it("spans nested blocks, and finds marks that neither template nor data hold", () => {
    const { text, spans } = render(
      "\ufdd0{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}\ufdd1",
    );
    expect(text).toBe("\ufdd0ab\ufdd1");
    expect(spans).toEqual([
      [2, 3],
      [1, 3],
    ]);
  });

  it("refuses half a generation block", () => {
    expect(() => render("{% set x %}{% generation %}abc{% endgeneration %}{% endset %}{{ x[:2] }}")).toThrow(
      /printed whole/,
    );
  });
});

describe("hostile templates", () => {
  const hostile: Record<string, string> = {
    "a loop without end in practice":
      "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a text that doubles":
      "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}",
    "a list that doubles":
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | length }}",
    "a huge repeat": "{{ 'x' * 10 ** 12 }}",
    "a huge integer": "{{ 10 ** (10 ** 9) }}",
    "a shift by multiplication":
      "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    padding: "{{ 'x'.center(10 ** 12) }}",
    "a wide format": "{{ '%999999999d' % 1 }}{{ '{:>999999999}'.format(1) }}{{ 1 + '' }}",
    "brackets nested deep": `{{ ${"(".repeat(100000)}1${")".repeat(100000)} }}`,
    "constructors by name": "{{ ''.constructor.constructor('return 1')() }}",
    "prototypes by name": "{{ {}.__proto__.x }}{{ [].__class__.__mro__ }}{{ ''.__class__.x }}",
    "a filter from a prototype": "{{ 1 | toString }}",
    "a test from a prototype": "{{ 1 is constructor }}",
  };
  for (const [name, source] of Object.entries(hostile))
    it(`are stopped: ${name}`, () => {
      const start = performance.now();
      expect(() => render(source, { steps: 200_000, text: 1 << 20 })).toThrow();
      expect(performance.now() - start).toBeLessThan(10_000);
    });
});
