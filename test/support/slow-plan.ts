import type { PullPlan, Segments } from '../../src/plan/plan.js';
import type { PlanLimits } from '../../src/plan/spans.js';
import type { RandomImage, RandomLayer } from './random-image.js';

/** The role of a byte of a blob in the slow model of the gap rule. */
type Mark = 'wanted' | 'other' | 'barrier';

/** The integers of [start, end). */
function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

/** Where a span of this layer may begin or end. */
export function knownBoundaries(layer: RandomLayer): Set<number> {
  return new Set([
    0,
    layer.want.table.dataEnd,
    ...layer.contents.flatMap(({ blob, chunks }) => [...blob, ...(chunks ?? []).map((c) => c.blobStart)]),
    ...layer.trueResumed.flatMap((piece) => [piece.blobStart, piece.blobEnd]),
  ]);
}

/** The origin of each content: a pack, an earlier copy, or none (then its chunks are looked at). */
function contentStates(image: RandomImage): ('held' | 'copy' | 'wanted')[][] {
  const firsts = new Map<string | number, boolean>();
  return image.layers.map(({ contents, want }) =>
    contents.map(({ name }, row) => {
      const held = want.cachedPack[row]! >= 0;
      const first = firsts.get(name);
      if (first === undefined) firsts.set(name, held);
      if (held || first === true) return 'held';
      return first === undefined ? 'wanted' : 'copy';
    }),
  );
}

/** The parts of a content that are fetched or cached as a unit: its chunks, else itself. */
function partsOf(layer: RandomLayer, row: number) {
  const content = layer.contents[row]!;
  const { want } = layer;
  const chunk = want.table.chunkFirst[row]!;
  const starts = content.chunks ?? [{ blobStart: content.blob[0], tarStart: content.tarStart }];
  return starts.map((start, i) => ({
    ...start,
    blobEnd: starts[i + 1]?.blobStart ?? content.blob[1],
    tarEnd: starts[i + 1]?.tarStart ?? content.tarStart + content.sizeBytes,
    held: content.chunks !== undefined && want.chunkCachedPack[chunk + i]! >= 0,
  }));
}

function marksOf(layer: RandomLayer, states: readonly string[]): Mark[] {
  const marks: Mark[] = new Array(layer.want.table.dataEnd).fill('other');
  for (const piece of layer.trueResumed) marks.fill('barrier', piece.blobStart, piece.blobEnd);
  for (const [row, state] of states.entries()) {
    for (const part of partsOf(layer, row)) {
      if (state !== 'wanted' || part.held) continue;
      const frames = layer.frames.filter(
        ({ blobStart }) => blobStart >= part.blobStart && blobStart < part.blobEnd,
      );
      // The bytes that no resumed piece has are fetched unless they decode to nothing.
      for (let i = 0; i < frames.length; ) {
        let end = i;
        while (end < frames.length && marks[frames[end]!.blobStart] !== 'barrier') end++;
        const rest = frames.slice(i, end);
        if (rest.some((frame) => frame.tarEnd > frame.tarStart)) {
          marks.fill('wanted', rest[0]!.blobStart, rest.at(-1)!.blobEnd);
        }
        i = end + 1;
      }
    }
  }
  return marks;
}

/** Rule by rule and byte by byte: 1 for each fetched byte of each layer. */
export function slowFetched(image: RandomImage, limits: PlanLimits): number[][] {
  const states = contentStates(image);
  const marks = image.layers.map((layer, number) => marksOf(layer, states[number]!));
  const distances = image.layers.flatMap((layer, number) =>
    sectionsOf(layer, marks[number]!).flatMap(([start, end]) => {
      const wanted = range(start, end).filter((at) => marks[number]![at] === 'wanted');
      if (wanted.length === 0) return [];
      return [start - 1, ...wanted].flatMap((at, i) => {
        const next = wanted[i] ?? end;
        return next - at > 1 ? [{ number, start: at + 1, end: next, bytes: next - at - 1 }] : [];
      });
    }),
  );
  const wantedBytes = marks.flat().filter((mark) => mark === 'wanted').length;
  const fetched = marks.map((layer) => layer.map((mark) => (mark === 'wanted' ? 1 : 0)));
  const free = marks.map((layer) => {
    const wanted = layer.filter((mark) => mark === 'wanted').length;
    const all = layer.filter((mark) => mark !== 'barrier').length;
    return wanted > 0 && wanted >= limits.mostlyMissingShare * all ? limits.requestBytes : limits.gapBytes;
  });
  const isFree = ({ number, bytes }: (typeof distances)[number]) => bytes <= free[number]!;
  for (const { number, start, end } of distances.filter(isFree)) fetched[number]!.fill(1, start, end);
  let extraBytes = 0;
  // sort() keeps the order of equal ones.
  for (const distance of distances.filter((one) => !isFree(one)).sort((a, b) => a.bytes - b.bytes)) {
    extraBytes += distance.bytes;
    if (extraBytes > wantedBytes * limits.extraShare) break;
    fetched[distance.number]!.fill(1, distance.start, distance.end);
  }
  return fetched;
}

/** The ranges of a blob without a resumed piece or a hole, within which a span may run. */
function sectionsOf(layer: RandomLayer, marks: readonly Mark[]): [number, number][] {
  const holes = new Set(
    layer.frames
      .slice(1)
      .filter((frame, i) => frame.tarStart > layer.frames[i]!.tarEnd)
      .map((f) => f.blobStart),
  );
  const sections: [number, number][] = [];
  let start = 0;
  for (let at = 0; at <= marks.length; at++) {
    if (at < marks.length && marks[at] !== 'barrier' && !holes.has(at)) continue;
    if (at > start) sections.push([start, at]);
    start = marks[at] === 'barrier' ? at + 1 : at;
  }
  return sections;
}

/** Visits the segments that overlap [tarStart, tarEnd), each with the part of that range it has. */
export function eachSegmentIn(
  { count, tarStart: starts }: Segments,
  tarStart: number,
  tarEnd: number,
  visit: (row: number, partStart: number, partEnd: number) => void,
): void {
  for (let row = 0; row < count; row++) {
    const partStart = Math.max(tarStart, starts[row]!);
    const partEnd = Math.min(tarEnd, starts[row + 1]!);
    if (partStart < partEnd) visit(row, partStart, partEnd);
  }
}

/** The totals of one layer, counted byte by byte. */
export function recount(image: RandomImage, plan: PullPlan, number: number) {
  const layer = image.layers[number]!;
  const kinds: string[] = new Array(layer.tar.length).fill('inlineBytes');
  for (const [row, state] of contentStates(image)[number]!.entries()) {
    for (const part of partsOf(layer, row)) {
      const kind = state === 'copy' ? 'copiedBytes' : 'reusedBytes';
      kinds.fill(kind, part.tarStart, part.tarEnd);
    }
  }
  for (const { tarStart, lengthBytes } of layer.trueResumed) {
    kinds.fill('resumedBytes', tarStart, tarStart + lengthBytes);
  }
  let fetchBytes = 0;
  for (const span of plan.spans.filter((one) => one.layer === number)) {
    kinds.fill('decodedBytes', span.tarStart, span.tarEnd);
    fetchBytes += span.blobEnd - span.blobStart;
  }
  const count = (kind: string) => kinds.filter((one) => one === kind).length;
  return {
    fetchBytes,
    decodedBytes: count('decodedBytes'),
    reusedBytes: count('reusedBytes'),
    copiedBytes: count('copiedBytes'),
    resumedBytes: count('resumedBytes'),
    inlineBytes: count('inlineBytes'),
  };
}
