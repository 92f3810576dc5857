/**
 * How much a response may have before its body: four times what Node and most servers take, as some proxies add policies and cookies of
 * 20 KB.
 */
export const MAX_HEADER_BYTES = 64 * 1024;

/**
 * How far a body is read that nobody needs (of a redirect, a challenge, an error): error bodies have a few hundred bytes. Behind
 * this the connection is closed.
 */
export const MAX_SPARE_BODY_BYTES = 64 * 1024;

/** How long such a body is waited for: it usually comes with its headers, and a new connection costs less than this. */
const SPARE_BODY_MS = 2_000;

/** A small answer may take as long as so many silences: nobody who lets a byte go in each of them holds a pull for long. */
const IDLE_TIMEOUTS = 6;

/** Slower than a modem. A manifest of 4 MiB may take 17 minutes at this rate, and one of usual size comes within the first minute. */
const MIN_BYTES_A_SECOND = 4096;

/** How long to wait for a body that nobody needs, in milliseconds. */
export function spareBodyMs(idleTimeoutMs: number): number {
  return Math.min(SPARE_BODY_MS, idleTimeoutMs);
}

/**
 * How long the body of a small answer (a token, a manifest, a config) may take when so many bytes of it are there, in
 * milliseconds: 60 s by default, and a second for each 4 KiB. The idle timeout alone would let a byte every nine seconds go on for a
 * year.
 */
export function smallAnswerMs(idleTimeoutMs: number, receivedBytes: number): number {
  return IDLE_TIMEOUTS * idleTimeoutMs + (receivedBytes * 1000) / MIN_BYTES_A_SECOND;
}
