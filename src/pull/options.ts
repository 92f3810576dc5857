import type { LayerFormat } from '../format/layer-format.js';
import type { LayerFollower } from '../pool/layer-follower.js';
import type { TokenCache } from '../registry/token.js';
import type { PullEvent } from './events.js';

/** Whether the registry is asked: always, only when the image is not in the store, or never. */
export type Policy = 'always' | 'missing' | 'never';

export interface PullOptions {
  /** Root directory of the store. */
  readonly store: string;
  /** `os/arch[/variant]`; default linux and this machine's architecture. */
  readonly platform?: string;
  readonly policy?: Policy;
  /** Fetching and decoding threads; default the cores this process may use, at most 16. */
  readonly workers?: number;
  /** Range requests in flight, all layers and workers together; default 16. */
  readonly connections?: number;
  /** Karma's time constant τ; default 1000. */
  readonly patienceMs?: number;
  /** How long a connection may take to stand, TLS included; default 5000. Each of these limits is one miss when it is exceeded. */
  readonly connectTimeoutMs?: number;
  /** How long an answer may be silent once its body has begun; default 10000. */
  readonly idleTimeoutMs?: number;
  /** How long a connection that stands may take to begin an answer; default 60000. */
  readonly answerTimeoutMs?: number;
  /** Fetches foreign layers from where their descriptors say, without credentials; default false. */
  readonly allowForeign?: boolean;
  /** Pulls although policy.json asks for a proof that is not checked, such as a signature; what it rejects is rejected all the same. */
  readonly insecurePolicy?: boolean;
  /** Bytes a second that all layers together receive at most; default no limit. */
  readonly limitRate?: number;
  readonly plainHttp?: boolean;
  /** Follows redirects of a registry with https to a storage without; default false. Digests prove the bytes. */
  readonly allowHttpStorage?: boolean;
  readonly tlsVerify?: boolean;
  /** Directory with the registry's certificates, instead of the usual ones: `*.crt`, `*.cert` with `*.key`. */
  readonly certDir?: string;
  /** For the registry of the image and none of its mirrors; left out, they are looked for where podman and docker keep them. */
  readonly credentials?: { readonly username: string; readonly password: string };
  /** The only file to look for credentials in. */
  readonly authfile?: string;
  /** Pulls that are given the same map share the tokens they are let in with; left out, this one shares them with none. */
  readonly tokens?: TokenCache;
  /** Emits a `debug` event for each request. */
  readonly debug?: boolean;
  /** Aborting ends the pull at once and leaves a store from which the next one goes on; the reason is thrown. */
  readonly signal?: AbortSignal;
  /** What uses layers while others still come, such as `RootfsFollower`. */
  readonly follower?: LayerFollower;
  readonly onEvent?: (event: PullEvent) => void;
}

export interface LayerResult {
  readonly digest: string;
  readonly diffId: string;
  readonly mediaType: string;
  readonly format: LayerFormat;
  readonly sizeBytes: number;
  readonly tarBytes: number;
  readonly metadataBytes: number;
  /** Body bytes of this blob received in this run, metadata, gaps and what was received twice included. */
  readonly fetchedBytes: number;
  /** Tar bytes found in the store by digest, or the whole tar of a layer that was there. */
  readonly reusedBytes: number;
  /** Tar bytes found true from a pull that was broken off. */
  readonly resumedBytes: number;
  /** GETs of this blob, retries included. */
  readonly requests: number;
}

export interface PullResult {
  readonly image: string;
  readonly digest: string;
  /** The digest of the index that led to it, when there was one. */
  readonly indexDigest?: string;
  readonly platform: string;
  readonly store: string;
  readonly layers: readonly LayerResult[];
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
  readonly misses: number;
  readonly durationMs: number;
  readonly verified: true;
  /** Figures for benchmarks. */
  readonly measured: {
    /** From the last content byte received until every DiffID was proven. */
    readonly provenAfterMs: number;
    /** Share of the time the main thread's event loop was busy, 0 to 1. */
    readonly mainThreadBusy: number;
  };
}

/** The part of an image that is wanted. */
export interface PathSelection {
  /** In the image, links followed. */
  readonly path: string;
  /** Whether a directory is to be the root of what is exported; else it keeps its name. */
  readonly asRoot: boolean;
}

export interface PathResult extends PullResult {
  /** What to export: the layers of the image, of which the path is to be taken, or one that has nothing but what is at the path. */
  readonly diffIds: readonly string[];
  readonly isPicked: boolean;
}
