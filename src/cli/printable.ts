/**
 * What a terminal might obey instead of showing: control characters, C1 included, and the marks that turn or join
 * text around them (Unicode's Cc, Cf, Cs, Zl, Zp). The text of a message may come from a registry.
 */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** The text on one line with everything that a terminal might obey written as `\u{…}`. */
export function printable(text: string): string {
  return text.replace(HOSTILE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/** One line of JSON, safe to show on a terminal too: JSON itself leaves all but the first 32 characters as they are. */
export function jsonLine(value: unknown): string {
  const escaped = JSON.stringify(value).replace(HOSTILE, (character) =>
    [...Array(character.length).keys()]
      .map((unit) => `\\u${character.charCodeAt(unit).toString(16).padStart(4, '0')}`)
      .join(''),
  );
  return `${escaped}\n`;
}
