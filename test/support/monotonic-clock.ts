import type { TestContext } from 'node:test';

/** Lets the monotonic clock run ahead by so many milliseconds, in this test; may be called again. */
export function skipTime(t: TestContext): (ms: number) => void {
  const real = performance.now.bind(performance);
  let aheadMs = 0;
  t.mock.method(performance, 'now', () => real() + aheadMs);
  return (ms) => {
    aheadMs += ms;
  };
}
