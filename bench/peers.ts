import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readLayers } from './layer-toc.js';
import { missingProgram, runProgram } from './process.js';
import type { Sample } from './sample.js';

/** Another way to do what a pull does. */
export interface Peer {
  readonly name: string;
  /** Why it cannot be measured here; undefined if it can. */
  readonly missing: string | undefined;
  /** Does it once, into a directory that is not there. @returns its seconds @throws Error when it fails */
  run(host: string, sample: Sample, directory: string): Promise<number>;
}

/** How a pipeline decodes a blob, and whether it hashes that, too. */
interface Decoding {
  readonly decoder: 'zstd' | 'pigz';
  readonly hashesBlob: boolean;
}

/** All layers at once, each: received, decoded, written as a tar, its DiffID compared, and its digest where `hashesBlob`. */
export function verifiedPipeline({ decoder, hashesBlob }: Decoding): Peer {
  const decode = { zstd: 'zstd -dcq', pigz: 'pigz -dc' }[decoder];
  const hash = 'openssl dgst -sha256 -r';
  const layerOf = (url: string, digests: readonly string[], tar: string) => {
    // The shell waits for whatever writes into what it captures.
    const blobHash = hashesBlob ? ` | tee >(${hash} >&3)` : '';
    const hashes = `$( { curl -sf '${url}'${blobHash} | ${decode} | tee '${tar}' | ${hash}; } 3>&1 )`;
    const proofs = digests.map((digest) => `[[ $hashes == *${digest}* ]]`);
    return `{ ${[`hashes="${hashes}"`, ...proofs].join(' && ')}; } & pids+=($!)`;
  };
  return {
    name: `curl | ${decode} | tee | openssl`,
    missing: absent('bash', 'curl', decoder, 'openssl'),
    run(host, sample, directory) {
      mkdirSync(directory);
      const hex = (digest: string) => digest.slice('sha256:'.length);
      const layers = readLayers(sample).map(({ descriptor: { digest }, diffId }, layer) => {
        const digests = hashesBlob ? [hex(diffId), hex(digest)] : [hex(diffId)];
        return layerOf(urlOf(host, digest), digests, join(directory, String(layer)));
      });
      const script = ['set -o pipefail', ...layers, `for pid in "\${pids[@]}"; do wait $pid || exit 1; done`];
      return runProgram('bash', ['-c', script.join('\n')]);
    },
  };
}

/** skopeo into a store of containers/storage of its own, with the overlay driver, which leaves its mounts where nobody else sees them. */
export const containersStorage: Peer = {
  name: 'skopeo copy … containers-storage:',
  missing:
    absent('skopeo', 'unshare') ?? (process.getuid?.() === 0 ? undefined : 'containers-storage needs root'),
  run(host, { ref }, directory) {
    mkdirSync(directory, { recursive: true });
    const config = join(directory, 'storage.conf');
    const pullOptions = 'pull_options = {enable_partial_images = "true"}';
    const places = `graphroot = "${directory}/root"\nrunroot = "${directory}/run"`;
    writeFileSync(config, `[storage]\ndriver = "overlay"\n${places}\n[storage.options]\n${pullOptions}\n`);
    const options = ['copy', '--quiet', '--insecure-policy', '--src-tls-verify=false'];
    const copy = ['skopeo', ...options, `docker://${host}/bench:${ref}`, `containers-storage:bench/x:${ref}`];
    return runProgram('unshare', ['--mount', 'env', `CONTAINERS_STORAGE_CONF=${config}`, ...copy]);
  },
};

/** Files and no proof: one layer after the other. */
export const tarPipe: Peer = {
  name: 'curl | zstd -dc | tar -x',
  missing: absent('bash', 'curl', 'zstd', 'tar'),
  run(host, sample, directory) {
    mkdirSync(directory);
    const unpack = `zstd -dcq | tar -xp --numeric-owner -C '${directory}'`;
    const layers = readLayers(sample).map(({ descriptor }) => urlOf(host, descriptor.digest));
    const script = layers.map((url) => `curl -sf '${url}' | ${unpack}`).join(' && ');
    return runProgram('bash', ['-c', `set -o pipefail; ${script}`]);
  },
};

function urlOf(host: string, digest: string): string {
  return `http://${host}/v2/bench/blobs/${digest}`;
}

function absent(...programs: readonly string[]): string | undefined {
  const program = missingProgram(...programs);
  return program === undefined ? undefined : `${program} is not installed`;
}
