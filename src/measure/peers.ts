import { basename } from 'node:path';
import type { ImageInspection } from '../api/pull.js';
import { type ChildOptions, type Ended, missingProgram, runChild } from './child.js';
import { type Context, NO_SETTING } from './context.js';
import { pullInto, type Setting } from './pulls.js';
import { type Finding, PeerFailure, type Subject } from './recorder.js';
import type { PeerDescription } from './report.js';
import { LOOPBACK } from './resolve.js';

/** A program that takes longer hangs; nobody wants to wait for it. */
const MAX_PEER_MS = 3_600_000;
/** For its version, and whether its daemon is there. */
const MAX_CHECK_MS = 30_000;
const MAX_CLEAN_UP_MS = 60_000;

/** What a peer is to fetch. */
interface Target {
  /** Host, repository and digest, as other programs write it. */
  readonly reference: string;
  /** `https://host/v2/repository` */
  readonly url: string;
  /** The registry speaks http, or its certificate is not checked. */
  readonly isInsecure: boolean;
  readonly layers: ImageInspection['layers'];
}

/** Another program that fetches an image, with its best documented settings. */
interface Peer extends Pick<PeerDescription, 'leaves' | 'proves'> {
  /** Programs that must be installed. */
  readonly programs: (target: Target) => readonly string[];
  /** Prints its version. */
  readonly version: string;
  /**
   * A shell script that fetches the image into `$directory`, which is empty. `$unique` may name
   * things elsewhere.
   */
  readonly script: (target: Target) => string;
  /** A shell script that removes what it left elsewhere. */
  readonly cleanUp?: (target: Target) => string;
  /** A shell script that fails with a reason on its standard output where the peer cannot be measured. */
  readonly check?: string;
}

const PEERS: Readonly<Record<string, Peer>> = {
  skopeo: {
    programs: () => ['skopeo'],
    version: 'skopeo --version',
    leaves: 'blobs in an OCI layout, not unpacked',
    proves: 'the digests of the blobs, no DiffID',
    script: ({ reference, isInsecure }) =>
      `skopeo copy --quiet --insecure-policy${isInsecure ? ' --src-tls-verify=false' : ''} ${quote(`docker://${reference}`)} "oci:$directory/layout:x"`,
  },
  crane: {
    programs: () => ['crane'],
    version: 'crane version',
    leaves: 'blobs in an OCI layout, not unpacked',
    proves: 'the digests of the blobs, no DiffID',
    script: ({ reference, isInsecure }) =>
      `crane pull --format oci${isInsecure ? ' --insecure' : ''} ${quote(reference)} "$directory/layout"`,
  },
  podman: {
    programs: () => ['podman'],
    version: 'podman --version',
    leaves: 'unpacked files in an overlay storage',
    proves: 'the digests of the blobs and the DiffIDs',
    // Its overlay leaves a mount where the storage is: a mount namespace of its own takes it along.
    // It refuses longer paths for its sockets than a store may have.
    script: ({ reference, isInsecure }) =>
      `mktemp -d /tmp/zpull-XXXXXX >"$directory/runtime" && ${isRoot() ? 'unshare --mount ' : ''}podman --root "$directory/root" --runroot "$(cat "$directory/runtime")" pull --quiet${isInsecure ? ' --tls-verify=false' : ''} ${quote(reference)}`,
    cleanUp: () =>
      `${isRoot() ? '' : 'podman unshare '}rm -rf "$directory/root" "$(cat "$directory/runtime")"`,
  },
  ctr: {
    programs: () => ['ctr'],
    version: 'ctr --version',
    leaves: 'blobs and unpacked snapshots, in a namespace of containerd that is removed',
    proves: 'the digests of the blobs and the DiffIDs',
    check:
      'ctr version >/dev/null 2>&1 || { echo containerd does not run here, or only root may use it; false; }',
    script: ({ reference, isInsecure }) =>
      `ctr namespaces create "$unique" && ctr --namespace "$unique" images pull${isInsecure ? ' --plain-http' : ''} ${quote(reference)} >/dev/null`,
    cleanUp: ({ reference }) =>
      `ctr --namespace "$unique" images rm --sync ${quote(reference)}; ctr namespaces rm "$unique"`,
  },
  curl: {
    programs: curlPrograms,
    version: 'curl --version',
    leaves: "the layers' tars, not unpacked",
    proves: 'the DiffIDs',
    script: (target) => curlScript(target),
  },
  docker: {
    programs: () => ['docker'],
    version: 'docker --version',
    leaves: 'unpacked files in the storage of the daemon',
    proves: 'the digests of the blobs and the DiffIDs',
    check: 'echo its only storage is that of the daemon, which a benchmark must not empty; false',
    script: ({ reference }) => `docker pull --quiet ${quote(reference)}`,
  },
};

export const PEER_NAMES: readonly string[] = Object.keys(PEERS);

/** What of a layer the pipeline needs. */
type PipedLayer = Pick<ImageInspection['layers'][number], 'digest' | 'diffId' | 'format'>;

/** What the pipeline receives. */
export interface PipelineTarget extends Pick<Target, 'url'> {
  readonly layers: readonly PipedLayer[];
}

/** The programs that `curlScript` runs. */
export function curlPrograms({ layers }: Pick<PipelineTarget, 'layers'>): string[] {
  const decoders = layers.map((layer) => decoderOf(layer).split(' ', 1)[0]!);
  return ['bash', 'curl', 'openssl', ...new Set(decoders)];
}

/**
 * All layers at once: each is received, decoded, written as a tar into `$directory`, and hashed;
 * its DiffID is compared, with `hashesBlobs` the digest of its blob, too.
 */
export function curlScript({ url, layers }: PipelineTarget, hashesBlobs = false): string {
  const hash = 'openssl dgst -sha256 -r';
  const pipes = layers.map((layer, i) => {
    const decode = `${decoderOf(layer)} | tee "$directory/${i}.tar" | ${hash}`;
    const receive = `curl -sfL ${quote(`${url}/blobs/${layer.digest}`)}`;
    // The shell waits for all that write into what it captures.
    const pipe = hashesBlobs
      ? `{ ${receive} | tee >(${hash} >&3) | ${decode}; } 3>&1`
      : `${receive} | ${decode}`;
    const proofs = [layer.diffId, ...(hashesBlobs ? [layer.digest] : [])].map(
      (digest) => `[[ $hashes == *${digest.slice('sha256:'.length)}* ]]`,
    );
    return `{ hashes="$( ${pipe} )" && ${proofs.join(' && ')}; } & pids+=($!)`;
  });
  return ['set -o pipefail', ...pipes, `for pid in "\${pids[@]}"; do wait $pid || exit 1; done`].join('\n');
}

function decoderOf({ format }: PipedLayer): string {
  if (format === 'tar') return 'cat';
  if (format === 'gzip' || format === 'estargz') return 'pigz -dc';
  return 'zstd -dcq';
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** A word for a POSIX shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * Measures other programs and zpull in turns, each into an empty directory. Names those that
 * cannot be measured here.
 */
export async function measurePeers(
  context: Context,
  names: readonly string[],
  setting: Setting,
): Promise<void> {
  const { image, recorder } = context;
  if (names.length === 0) return;
  if (image.isLocal) return recorder.doubt('no other program was measured: the image is on this machine');
  const target = await targetOf(context);
  const peers: string[] = [];
  for (const name of names) {
    const description = await describe(context, name, target);
    recorder.report.peers.push(description);
    if (description.missing === null) peers.push(name);
  }
  recorder.save();
  if (peers.length === 0) return;
  const own = { subject: peerSubject('zpull', setting), run: () => ownRun(context, setting) };
  const others = peers.map((name) => ({
    subject: peerSubject(name),
    run: () => peerRun(context, name, PEERS[name]!, target),
  }));
  await context.inTurns([own, ...others]);
}

export function peerId(name: string): string {
  return `peer/${name}`;
}

function peerSubject(name: string, setting?: Setting): Subject {
  return {
    ...NO_SETTING,
    ...setting,
    id: peerId(name),
    stage: 'peer',
    name,
    peer: name,
  };
}

async function ownRun(context: Context, setting: Setting): Promise<Finding> {
  return context.withPath(context.freshStore(context.image), async (store) => {
    const { result, ...called } = await pullInto(context, store, setting);
    return { ...called, bytes: result.fetchedBytes ?? context.image.blobBytes };
  });
}

async function peerRun(context: Context, name: string, peer: Peer, target: Target): Promise<Finding> {
  return context.withPath(context.makeDirectory(), async (directory) => {
    const { signal } = context.options;
    // `unique` is also that among other benchmarks.
    const unique = `${basename(context.options.directory)}-${basename(directory)}`;
    const env = { ...process.env, directory, unique };
    try {
      const ended = await runScript(peer.script(target), { signal, env, timeoutMs: MAX_PEER_MS }, name);
      if (ended.code !== 0) {
        const end = ended.signal === null ? `exit code ${ended.code}` : ended.signal;
        throw new PeerFailure(
          `${name} ended with ${end}: ${ended.stderr.trim().replaceAll(/\s+/g, ' ').slice(-500)}`,
        );
      }
      return {
        wallSeconds: ended.wallMs / 1000,
        bytes: context.image.blobBytes,
        cpuSeconds: ended.cpuSeconds,
        peakMemoryBytes: null,
        stages: null,
        timeline: null,
      };
    } finally {
      if (peer.cleanUp !== undefined) {
        // After an abort, too.
        const options = { signal: new AbortController().signal, env, timeoutMs: MAX_CLEAN_UP_MS };
        await runScript(peer.cleanUp(target), options, name);
      }
    }
  });
}

/** @throws PeerFailure when it cannot be started or takes too long; the reason of an abort */
async function runScript(script: string, options: ChildOptions, name: string): Promise<Ended> {
  try {
    return await runChild('bash', ['-c', script], options);
  } catch (error) {
    options.signal.throwIfAborted();
    throw new PeerFailure(`${name} ${(error as Error).message}`);
  }
}

async function describe(context: Context, name: string, target: Target): Promise<PeerDescription> {
  const peer = PEERS[name]!;
  const { leaves, proves } = peer;
  const absent = missingProgram('bash', ...peer.programs(target));
  const common = { name, leaves, proves, command: peer.script(target), version: null };
  if (absent !== undefined) return { ...common, missing: `${absent} is not installed` };
  const options = { signal: context.options.signal, timeoutMs: MAX_CHECK_MS };
  try {
    const { stdout } = await runScript(peer.version, options, peer.version);
    const version = stdout.trim().split('\n', 1)[0]?.slice(0, 100) || null;
    if (peer.check === undefined) return { ...common, version, missing: null };
    const check = await runScript(peer.check, options, name);
    return { ...common, version, missing: check.code === 0 ? null : check.stdout.trim().slice(0, 200) };
  } catch (error) {
    if (!(error instanceof PeerFailure)) throw error;
    return { ...common, missing: error.message };
  }
}

/** Docker Hub's registry has another name than its images. */
const HUB = 'registry-1.docker.io';

async function targetOf(context: Context): Promise<Target> {
  const { image, options } = context;
  const [name = ''] = image.pinned.split('@');
  const [host = '', ...path] = name.split('/');
  const repository = path.join('/').replace(/:[^:/]*$/, '');
  const server = host === 'docker.io' ? HUB : host;
  const isPlain = await speaksHttp(context, server);
  return {
    reference: `${host}/${repository}@${image.digest}`,
    url: `${isPlain ? 'http' : 'https'}://${server}/v2/${repository}`,
    isInsecure: isPlain || options.pull.tlsVerify === false,
    layers: context.layers,
  };
}

/** Whether a registry is to be asked by http: as the user says, or a loopback one without TLS. */
async function speaksHttp({ options: { pull, signal } }: Context, server: string): Promise<boolean> {
  if (pull.plainHttp === true) return true;
  if (!LOOPBACK.test(server)) return false;
  try {
    await fetch(`https://${server}/v2/`, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(MAX_CHECK_MS)]),
    });
    return false;
  } catch (error) {
    signal.throwIfAborted();
    const { code = '' } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
    return !/CERT|SIGNED/.test(code);
  }
}
