import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { missingProgram } from '../src/measure/child.js';
import { curlPrograms, curlScript } from '../src/measure/peers.js';
import { readLayers } from './layer-toc.js';
import { runProgram } from './process.js';
import type { Sample, SampleFormat } from './sample.js';

/** Another way to do what a pull does. */
export interface Peer {
  readonly name: string;
  /** Why it cannot be measured here; undefined if it can. */
  readonly missing: string | undefined;
  /** Does it once, into a directory that is not there. @returns its seconds @throws Error when it fails */
  run(host: string, sample: Sample, directory: string): Promise<number>;
}

/** The pipeline of `zpull bench --against curl`, on layers of a format; with `hashesBlobs` it also proves the digests of the blobs. */
export function verifiedPipeline(
  format: Extract<SampleFormat, 'gzip' | 'zstd' | 'zstd:chunked'>,
  hashesBlobs = false,
): Peer {
  return {
    name: `curl | ${format === 'gzip' ? 'pigz' : 'zstd'} | tee | openssl`,
    missing: absent(...curlPrograms({ layers: [{ digest: '', diffId: '', format }] })),
    run(host, sample, directory) {
      mkdirSync(directory);
      const layers = readLayers(sample).map(({ descriptor: { digest }, diffId }) => {
        return { digest, diffId, format };
      });
      const script = curlScript({ url: `http://${host}/v2/bench`, layers }, hashesBlobs);
      return runProgram('bash', ['-c', script], { directory });
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
    return runProgram('unshare', ['--mount', ...copy], { CONTAINERS_STORAGE_CONF: config });
  },
};

/** Files and no proof: one layer after the other. */
export const tarPipe: Peer = {
  name: 'curl | zstd -dc | tar -x',
  missing: absent('bash', 'curl', 'zstd', 'tar'),
  run(host, sample, directory) {
    mkdirSync(directory);
    const unpack = `zstd -dcq | tar -xp --numeric-owner -C '${directory}'`;
    const script = readLayers(sample)
      .map(({ descriptor }) => `curl -sf 'http://${host}/v2/bench/blobs/${descriptor.digest}' | ${unpack}`)
      .join(' && ');
    return runProgram('bash', ['-c', `set -o pipefail; ${script}`]);
  },
};

/** Copies of the image into an OCI layout. */
export const skopeoCopy: Peer = {
  name: 'skopeo',
  missing: absent('skopeo'),
  run(host, { ref }, directory) {
    const options = ['copy', '--quiet', '--insecure-policy', '--src-tls-verify=false'];
    return runProgram('skopeo', [...options, `docker://${host}/bench:${ref}`, `oci:${directory}:x`]);
  },
};

export const cranePull: Peer = {
  name: 'crane',
  missing: absent('crane'),
  run: (host, { ref }, directory) =>
    runProgram('crane', ['pull', '--insecure', '--format', 'oci', `${host}/bench:${ref}`, directory]),
};

/** Says which of these programs is not installed, if one is not. */
export function absent(...programs: readonly string[]): string | undefined {
  const program = missingProgram(...programs);
  return program === undefined ? undefined : `${program} is not installed`;
}
