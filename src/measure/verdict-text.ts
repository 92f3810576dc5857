import { formatCount } from '../format/figures.js';
import { formatSecondsOf } from './figures.js';
import type { Shares, Verdict } from './report.js';

export const SHARE_TEXTS: Readonly<Record<keyof Shares, string>> = {
  resolve: 'resolve',
  metadata: 'metadata',
  fetchWait: 'wait for the network',
  receive: 'receive',
  decode: 'decode',
  hash: 'hash',
  write: 'write',
  sync: 'sync',
  prove: 'finish after the last byte',
  other: 'start-up and the rest',
};

/** The best setting, what the default loses against it, and the ratio to the floor, where it is known. */
export function settingSentences({ best, default: usual, floorRatio }: Verdict): string[] {
  const loss =
    usual === null
      ? 'The default was not measured.'
      : usual.lossPercent === 0
        ? 'The default loses nothing measurable against it.'
        : `The default (${settingText(usual)}) takes ${usual.lossPercent.toFixed(0)} % longer.`;
  const sentences = [`Best setting: ${settingText(best)}. ${loss}`];
  if (floorRatio === null) return sentences;
  const pull = (usual ?? best).wallSeconds;
  return [...sentences, floorSentence(pull, pull / floorRatio)];
}

/** Defines the floor, so that a reader can find its parts in the table. */
function floorSentence(pullSeconds: number, floorSeconds: number): string {
  const ratio = (pullSeconds / floorSeconds).toFixed(1);
  return `The floor is ${formatSecondsOf(floorSeconds)}: the longest of receiving alone, decoding and hashing alone on all cores, and writing alone. A pull that did them at the same time and nothing else would take so long; this one takes ${ratio} times that, and 1.0 would be the best.`;
}

function settingText({ workers, connections, wallSeconds }: Verdict['best']): string {
  return `${formatCount(workers, 'worker')}, ${formatCount(connections, 'connection')}: ${formatSecondsOf(wallSeconds)}`;
}
