import { PullError } from '../format/error.js';
import type { Answer } from './http-client.js';
import { unexpectedAnswer } from './refusal.js';

/** Codings that change bytes (RFC 9110, 8.4.1; RFC 7932; RFC 8878). Storages repeat other words that were uploaded with a blob. */
const CODINGS: ReadonlySet<string> = new Set([
  'gzip',
  'x-gzip',
  'compress',
  'x-compress',
  'deflate',
  'br',
  'zstd',
]);

/** What an encoded answer may have above the most that its decoded bytes may: headers and trailers of gzip, stored blocks. */
export const MAX_CODING_BYTES = 4096;

/** Whether a Content-Encoding names a coding that changes bytes. */
export function isCoded(encoding: string | undefined): boolean {
  return codingsOf(encoding).length > 0;
}

/** The labels of a Content-Encoding that mean a coding, in lower case. */
function codingsOf(encoding = ''): string[] {
  const labels = encoding.split(',').map((label) => label.trim().toLowerCase());
  return labels.filter((label) => CODINGS.has(label));
}

/**
 * A small answer without the coding that its header names, although nobody asked for one; one whose bytes are not in that coding
 * comes back as it is.
 * @throws PullError `answer-unexpected` for a coding that is not gzip, and for one that is damaged
 */
export async function decodeAnswer(answer: Answer, host: string, maxBytes: number): Promise<Answer> {
  const { body, headers, tooLong, status } = answer;
  const encoding = headers['content-encoding'];
  if (status >= 300 || tooLong || !isCoded(encoding)) return answer;
  const [coding = '', ...others] = codingsOf(encoding);
  const isGzip = others.length === 0 && /^(x-)?gzip$/.test(coding);
  const looksCoded = body[0] === 0x1f && body[1] === 0x8b;
  if (!isGzip && !/^\s*[[{]/.test(body.toString('latin1', 0, 16))) {
    throw unexpectedAnswer(`${host} encodes its answer, which nobody asked for`);
  }
  if (!isGzip || !looksCoded) return { ...answer, tooLong: body.length > maxBytes };
  const { gunzipSync } = await import('node:zlib');
  try {
    return { ...answer, body: gunzipSync(body, { maxOutputLength: Math.max(1, maxBytes) }) };
  } catch (error) {
    if (error instanceof RangeError) return { ...answer, tooLong: true };
    throw new PullError('answer-unexpected', `${host} encodes its answer, and what it sent is damaged`, {
      cause: error,
    });
  }
}
