/** Text that is HTML already. Made by `html` alone, which escapes all that is put into it. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Part = Html | string | number | readonly Part[] | null;

/** A template of HTML: what is put into it is escaped, unless it is HTML; null is nothing. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.reduce((text, next, i) => text + htmlOf(parts[i - 1] ?? null) + next));
}

function htmlOf(part: Part): string {
  if (part === null) return '';
  if (part instanceof Html) return part.text;
  if (typeof part === 'object') return part.map(htmlOf).join('');
  return escapeHtml(String(part));
}

/** Controls and marks that turn or join text (Unicode's Cc, Cf, Cs, Zl, Zp): they could make a name look like another. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** For text and for attributes in quotes. Characters that cannot be seen are written as `U+202E`. */
function escapeHtml(text: string): string {
  return text
    .replace(HOSTILE, (char) => `U+${char.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}`)
    .replace(/[&<>"']/g, (char) => ENTITIES[char]!);
}

/** JSON for a script element: no text in it can end the element or begin a comment. */
export function jsonHtml(value: unknown): Html {
  return new Html(
    JSON.stringify(value).replace(/[<>&]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`),
  );
}
