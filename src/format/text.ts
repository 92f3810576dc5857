/** Returns the text, cut to `maxLength` characters with the number of those left out. */
export function shorten(text: string, maxLength: number): string {
  const restLength = text.length - maxLength;
  return restLength <= 0
    ? text
    : `${text.slice(0, maxLength)}… (${formatNumber(restLength)} characters more)`;
}

/** Most characters of a list in a message: some dozen platforms, two or three long host names. */
const MAX_LIST_LENGTH = 600;

/**
 * Returns the items separated by commas, as many as fit a message and at least one: `a, b and 4,083
 * more`.
 */
export function listSome(items: readonly string[]): string {
  let length = 0;
  let shown = 0;
  for (const item of items) {
    length += item.length + 2;
    if (shown > 0 && length > MAX_LIST_LENGTH) break;
    shown += 1;
  }
  const list = items.slice(0, shown).join(', ');
  return shown === items.length ? list : `${list} and ${formatNumber(items.length - shown)} more`;
}

function formatNumber(value: number): string {
  return value.toLocaleString('en-US');
}

/**
 * Returns foreign text in quotes, cut to `maxLength` characters; control characters are escaped as
 * in JSON.
 */
export function quote(text: string, maxLength = 200): string {
  return JSON.stringify(shorten(text, maxLength));
}

/** Most characters of a file name in a message: half a line or more. */
const MAX_NAME_LENGTH = 300;

/** Returns a file name of a tar in quotes. Names are bytes: what is not UTF-8 becomes U+FFFD. */
export function quoteBytes(name: Buffer): string {
  return quote(name.toString(), MAX_NAME_LENGTH);
}
