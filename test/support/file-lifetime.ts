import { after } from 'node:test';
import type { Lifetime } from './temporary.js';

const ends: Array<() => unknown> = [];

// Registered here and now: within a running test it would be that test's.
after(async () => {
  for (const end of ends.reverse()) await end();
});

/** That of all tests of a file, for what they share and leave as it is. */
export const FILE: Lifetime = { after: (end) => ends.push(end) };
