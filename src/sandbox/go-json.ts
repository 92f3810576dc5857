import { isUtf8 } from 'node:buffer';

/** Stands for a byte that is not UTF-8: no decoded text holds half a surrogate pair, and JSON.stringify escapes it. */
const INVALID = '\udc80';

/** Everything that is escaped in JSON, and what Go's encoder escapes besides. */
const ESCAPED = /\\(?:u[0-9a-f]{4}|.)|[<>&\u2028\u2029]/g;

/** JSON as Go's encoder writes it: `<`, `>`, `&`, line separators and what was not UTF-8 as `\uXXXX`. */
export function goJson(value: unknown, indent = ''): string {
  return JSON.stringify(value, undefined, indent).replace(ESCAPED, (found) => {
    if (found.length === 1) return `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`;
    return found === '\\udc80' ? '\\ufffd' : found;
  });
}

/** Bytes as text for goJson: each byte that is no part of a UTF-8 sequence will be one U+FFFD. */
export function goText(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString();
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const end = endOfSequence(bytes, at);
    text += end === at ? INVALID : bytes.toString('utf8', at, end);
    at = end === at ? at + 1 : end;
  }
  return text;
}

/** The end of the UTF-8 sequence that starts here, or its start if none does. */
function endOfSequence(bytes: Buffer, start: number): number {
  for (let end = start + 1; end <= Math.min(start + 4, bytes.length); end += 1) {
    if (isUtf8(bytes.subarray(start, end))) return end;
  }
  return start;
}
