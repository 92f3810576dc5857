/**
 * Loaded into a child before everything else (`node --import`), in each of its threads: lets another user act at one
 * moment of an export. The program itself is unchanged.
 * ZPULL_TEST_ATTACK: an `Attack` as JSON.
 */
import child_process, { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import type { Attack } from './attack.js';

const { call, name, after, script, uid, marker } = JSON.parse(process.env['ZPULL_TEST_ATTACK']!) as Attack;
const { closeSync, openSync } = fs;

/** Runs once per process, in the first thread that gets here. */
function attack(): void {
  try {
    closeSync(openSync(marker, 'wx'));
  } catch {
    return;
  }
  spawnSync('sh', ['-c', script], { uid, gid: uid, stdio: 'inherit' });
}

const holder = (call === 'spawn' ? child_process : fs) as unknown as Record<
  string,
  (...args: unknown[]) => unknown
>;
const original = holder[call]!;
holder[call] = function attacked(this: unknown, ...args: unknown[]) {
  const isMeant = args.some((arg) => String(arg).split('/').at(-1)!.startsWith(name));
  if (isMeant && !after) attack();
  try {
    return Reflect.apply(original, this, args);
  } finally {
    if (isMeant && after) attack();
  }
};
syncBuiltinESMExports();
