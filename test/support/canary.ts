import assert from 'node:assert/strict';

/** Stands in every secret, and nowhere else. */
export const CANARY = 'canary';

export function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

/** Hunts for the canary in all that was said: plain, or within what may be base64, as Basic authentication has it. */
export function assertNoCanary(text: string): void {
  const at = text.search(/canary/i);
  assert.ok(at < 0, `…${text.slice(Math.max(0, at - 200), at + 50)}…`);
  for (const [encoded] of text.matchAll(/[\w+/-]{8,}/g)) {
    // It may begin anywhere, and four characters are three bytes.
    for (let start = 0; start < 4; start++) {
      const decoded = Buffer.from(encoded.slice(start), 'base64').toString('latin1');
      assert.ok(!/canary/i.test(decoded), `${encoded} has a canary within`);
    }
  }
}
