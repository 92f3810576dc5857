/** The text, cut to `maxLength` characters with a count of what is missing. */
export function shorten(text: string, maxLength: number): string {
  const restLength = text.length - maxLength;
  return restLength <= 0
    ? text
    : `${text.slice(0, maxLength)}… (${formatNumber(restLength)} characters more)`;
}

/** What a list in a message has room for: some dozen platforms, two or three long host names. */
const MAX_LIST_LENGTH = 600;

/** The items with commas between, as many as a message has room for, at least one: `a, b and 4,083 more`. */
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

/** Foreign text in quotes, cut to `maxLength` characters; control characters are escaped as in JSON. */
export function quote(text: string, maxLength = 200): string {
  return JSON.stringify(shorten(text, maxLength));
}

/** What a message shows of a file name: half a line or more. */
const MAX_NAME_LENGTH = 300;

/** A file name of a tar in quotes. Names are bytes: what is not UTF-8 is replaced by U+FFFD. */
export function quoteBytes(name: Buffer): string {
  return quote(name.toString(), MAX_NAME_LENGTH);
}
