// What the assistant says, for templates that do not mark it: each turn is the text that it adds when the conversation is rendered up to it.

import { RowError } from "./schema.ts";
import type { ChatTemplate, RenderInput } from "./template.ts";
import { pyLength } from "./jinja/text.ts";

/**
 * Spans in code points of `text`, the rendering of the whole conversation. A turn begins where the messages before it end together with the generation
 * prompt, and ends where the messages up to it end, stop token and what the template puts after it included. Both must be prefixes of the whole text.
 * Errors: RowError `unmarked_template` where they are not: such a template renders a turn differently when more follows.
 */
export function prefixSpans(template: ChatTemplate, input: RenderInput, text: string): (readonly [number, number])[] {
  const { messages } = input;
  const spans: (readonly [number, number])[] = [];
  messages.forEach((m, i) => {
    if (m.get("role") !== "assistant") return;
    const before = template.render({ ...input, messages: messages.slice(0, i), addGenerationPrompt: true }).text;
    const after =
      i === messages.length - 1 ? text : template.render({ ...input, messages: messages.slice(0, i + 1) }).text;
    if (!after.startsWith(before) || !text.startsWith(after))
      throw new RowError(
        "unmarked_template",
        `assistant_only_loss needs a chat template that marks what the assistant says with {% generation %}, or that renders message ${i} alike ` +
          `whether or not others follow; this one does neither (give a marked one with chat_template_path)`,
      );
    spans.push([pyLength(before), pyLength(after)]);
  });
  return spans;
}
