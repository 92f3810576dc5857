import { PullError } from './error.js';
import { type Fields, malformed, textOf } from './strict-json.js';

/** What an image runs on, in Go's terms (GOOS, GOARCH). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** The annotation that marks the zstd variant of a gzip image in an index. */
const ZSTD_ANNOTATION = 'io.github.containers.compression.zstd';

/** Systems, architectures and variants are words of some letters. */
const MAX_PART_LENGTH = 128;

const PART = /^[A-Za-z0-9_.-]{1,64}$/;
/**
 * Node's process.arch where Go's name differs. Node's ppc64 is little-endian on every system it
 * still runs on.
 */
const NODE_ARCHITECTURES: ReadonlyMap<string, string> = new Map([
  ['x64', 'amd64'],
  ['ia32', '386'],
  ['ppc64', 'ppc64le'],
  ['mipsel', 'mipsle'],
]);

/** Architectures that may stand alone for those of Linux: Go's, and other names of them. */
const ARCHITECTURES: ReadonlySet<string> = new Set(
  '386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x'
    .concat(' i386 x86_64 x86-64 aarch64 armhf armel')
    .split(' '),
);

/**
 * Parses `os/architecture[/variant]` and normalises it. As for docker, the system may be left out:
 * `amd64` is `linux/amd64`, and `arm/v7` is `linux/arm/v7`.
 * @throws PullError `option-malformed`
 */
export function parsePlatform(text: string): Platform {
  const given = text.split('/');
  const isWithoutSystem = given.length < 3 && ARCHITECTURES.has(given[0]!.toLowerCase());
  const parts = isWithoutSystem ? ['linux', ...given] : given;
  const [os, architecture, variant] = parts;
  const valid = parts.length <= 3 && parts.every((part) => PART.test(part));
  if (!valid || os === undefined || architecture === undefined) {
    throw new PullError('option-malformed', `The platform ${JSON.stringify(text)} is not OS/ARCH[/VARIANT]`, {
      hint: 'Write it like linux/amd64, linux/arm/v7 or amd64.',
    });
  }
  return normalisePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

/**
 * Returns the platform in an object of a document, which `what` names. Absent or null fields are
 * empty.
 * @throws PullError `metadata-malformed` for anything but a short string
 */
export function parsePlatformFields(fields: Fields, what: string): Platform {
  const part = (name: string): string => {
    const text = textOf(fields, name, what);
    if (text.length <= MAX_PART_LENGTH) return text;
    throw malformed(`${what}.${name} has ${text.length} letters; at most ${MAX_PART_LENGTH} are accepted`);
  };
  const variant = part('variant');
  return {
    os: part('os'),
    architecture: part('architecture'),
    ...(variant === '' ? {} : { variant }),
  };
}

/** Returns the stated platform, with what it leaves out from `requested`. */
export function completePlatform(stated: Platform, requested: Platform): Platform {
  const os = stated.os === '' ? requested.os : stated.os;
  if (stated.architecture === '') return { ...requested, os };
  return { ...stated, os };
}

/** Returns Linux on the architecture that Node calls `arch` (process.arch). */
export function hostPlatform(arch: string): Platform {
  return normalisePlatform({ os: 'linux', architecture: NODE_ARCHITECTURES.get(arch) ?? arch });
}

/** `os/architecture[/variant]`. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/**
 * Returns the canonical form of a platform, as in containerd's platforms package: arm without a
 * variant is v7; v8 of arm64 and v1 of amd64 are left out.
 */
export function normalisePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const given = platform.architecture.toLowerCase();
  const variant = platform.variant?.toLowerCase() ?? '';
  const of = (architecture: string, normal = variant): Platform =>
    normal === '' ? { os, architecture } : { os, architecture, variant: normal };
  switch (given) {
    case 'i386':
      return of('386', '');
    case 'amd64':
    case 'x86_64':
    case 'x86-64':
      return of('amd64', variant === 'v1' ? '' : variant);
    case 'arm64':
    case 'aarch64':
      return of('arm64', arm64Variant(variant));
    case 'armhf':
      return of('arm', 'v7');
    case 'armel':
      return of('arm', 'v6');
    case 'arm':
      return of('arm', variant === '' ? 'v7' : withV(variant));
    default:
      return of(given);
  }
}

function arm64Variant(variant: string): string {
  const version = withV(variant).replace(/\.0$/, '');
  return version === 'v8' ? '' : version;
}

function withV(variant: string): string {
  return /^\d/.test(variant) ? `v${variant}` : variant;
}

/** Anything with a platform, like the entries of an index. */
interface Candidate {
  readonly platform?: Platform;
  readonly annotations?: Readonly<Record<string, string>>;
}

/**
 * Returns the entry of an index that suits `requested` best, undefined if none does: same system and
 * architecture, the requested variant or the nearest below it. Among equals the one marked as zstd,
 * else the first. Entries for `unknown/unknown` are attestations and never chosen.
 */
export function choosePlatform<C extends Candidate>(
  requested: Platform,
  candidates: readonly C[],
): C | undefined {
  const target = normalisePlatform(requested);
  if (target.os === 'unknown' || target.architecture === 'unknown') return undefined;
  for (const variant of variants(target)) {
    const equals = candidates.filter((candidate) => {
      if (candidate.platform === undefined) return false;
      const platform = normalisePlatform(candidate.platform);
      const same = platform.os === target.os && platform.architecture === target.architecture;
      return same && (platform.variant ?? '') === variant;
    });
    const zstd = equals.find(({ annotations }) => annotations?.[ZSTD_ANNOTATION] === 'true');
    const best = zstd ?? equals[0];
    if (best !== undefined) return best;
  }
  return undefined;
}

/**
 * Returns the variants that run on this normalised platform, best first; '' is the one left out.
 */
function variants({ architecture, variant = '' }: Platform): string[] {
  const [, major, minor] = /^v(0|[1-9]\d?)(?:\.(0|[1-9]\d?))?$/.exec(variant) ?? [];
  if (major === undefined) return [variant];
  const from = Number(major);
  const down = (last: number) =>
    Array.from({ length: Math.max(from - last + 1, 1) }, (_, i) => `v${from - i}`);
  if (architecture === 'arm' && minor === undefined) return down(5);
  if (architecture === 'amd64' && minor === undefined) return [...down(2), ''];
  if (architecture === 'arm64' && from >= 8) return arm64Variants(from, Number(minor ?? 0));
  return [variant];
}

/**
 * v9.2 -> v9.2, v9.1, v9, and then v8 in full: v9.n includes v8.(n + 5), and every v8 runs the
 * plain one.
 */
function arm64Variants(major: number, minor: number): string[] {
  const down = (from: number, top: number) =>
    Array.from({ length: top + 1 }, (_, i) => (i === top ? `v${from}` : `v${from}.${top - i}`));
  const eights = (top: number) => [...down(8, top).slice(0, -1), ''];
  return major === 8 ? eights(minor) : [...down(major, minor), ...eights(minor + 5)];
}
