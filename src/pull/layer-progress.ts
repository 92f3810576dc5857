/**
 * What a layer is doing: not begun, receiving bytes, all bytes received but not proven yet, proven
 * by this pull, in the store (or at the destination) before, or pulled by another process.
 */
export type LayerState = 'waiting' | 'fetching' | 'verifying' | 'done' | 'reused' | 'shared';

/** Where one layer of a pull or copy is. Sizes are in bytes. */
export interface LayerProgress {
  /** The digest of its blob. */
  readonly digest: string;
  /** Left out in a copy, which decodes nothing. */
  readonly diffId?: string;
  readonly state: LayerState;
  /** Of its blob. */
  readonly sizeBytes: number;
  /** Body bytes of its blob received by this pull, metadata and bytes received twice included. */
  readonly receivedBytes: number;
  /** The bytes to receive; the size of the blob until the plan is made. */
  readonly totalBytes: number;
  /** Bytes that need not be fetched because other layers in the store have them. */
  readonly reusedBytes: number;
  /** Bytes that an interrupted pull left. */
  readonly resumedBytes: number;
}

/** A layer before anything is known of it but its descriptor. */
export interface ListedLayer extends Pick<LayerProgress, 'digest' | 'diffId' | 'sizeBytes'> {
  /** Whether the layer is proven and stored already. */
  readonly isCached: boolean;
}

/** What the plan says of a layer. */
export interface LayerTotals extends Pick<LayerProgress, 'totalBytes' | 'reusedBytes' | 'resumedBytes'> {
  /** Bytes of `totalBytes` that were received while the plan was made. */
  readonly receivedBytes: number;
}

/** What requests in flight wait for: the beginning of an answer, or more of a body. */
export type Awaited = 'answer' | 'body';

/** Fetches layers; asked ten times a second at most. */
export interface LayerSource {
  /** Received bytes by row of the layer. */
  receivedByLayer(): readonly number[];
  /** Undefined while no range is in flight. */
  readonly awaited: Awaited | undefined;
}

interface Row {
  readonly key: string;
  readonly isPlanned: boolean;
  readonly beforeBytes: number;
  readonly shown: LayerProgress;
}

/**
 * Knows where each layer is, for a display. The steps of a pull report what happens once a layer;
 * received bytes are read from the shared counters of the ranges in flight, and only when somebody
 * calls `changes`. `key` is the DiffID of a layer, in a copy the digest of its blob.
 */
export class LayerBoard {
  readonly #rows = new Map<string, Row>();
  readonly #changed = new Set<string>();
  #source: { readonly keys: readonly string[]; readonly fetcher: LayerSource } | undefined;

  /** Lists the layers, lowest first; one that occurs twice once. */
  list(layers: Iterable<ListedLayer>): void {
    for (const { isCached, ...layer } of layers) {
      const key = layer.diffId ?? layer.digest;
      if (this.#rows.has(key)) continue;
      const state = isCached ? 'reused' : 'waiting';
      const zero = { receivedBytes: 0, reusedBytes: 0, resumedBytes: 0 };
      const shown = { ...layer, state, totalBytes: isCached ? 0 : layer.sizeBytes, ...zero } as const;
      this.#set({ key, isPlanned: false, beforeBytes: 0, shown });
    }
  }

  /** Other processes pull `theirs`, this one pulls `ours`; what they pulled before is there now. */
  share(theirs: ReadonlySet<string>, ours: ReadonlySet<string>): void {
    for (const row of this.#rows.values()) {
      const { state } = row.shown;
      if (theirs.has(row.key)) this.#show(row, { state: 'shared' });
      else if (state === 'shared') this.#show(row, { state: ours.has(row.key) ? 'waiting' : 'reused' });
    }
  }

  /** A layer is proven to be there. */
  reuse(key: string): void {
    const row = this.#rows.get(key);
    if (row !== undefined) this.#show(row, { state: 'reused', totalBytes: 0 });
  }

  /** The plan of a layer that this process pulls. */
  plan(key: string, { receivedBytes, ...totals }: LayerTotals): void {
    const row = this.#rows.get(key);
    if (row === undefined) return;
    const shown = { ...row.shown, ...totals, receivedBytes, state: 'waiting' } as const;
    this.#set({ key, isPlanned: true, beforeBytes: receivedBytes, shown });
  }

  /** Reads received bytes from this fetcher from now on; its rows are the layers of `keys`. */
  follow(keys: readonly string[], fetcher: LayerSource): void {
    this.#readReceived();
    this.#source = { keys, fetcher };
  }

  /** Adds to the bytes to receive, after a change of the plan; negative to subtract. */
  addTotal(key: string, bytes: number): void {
    const row = this.#rows.get(key);
    if (row !== undefined) this.#show(row, { totalBytes: Math.max(0, row.shown.totalBytes + bytes) });
  }

  /** A layer is proven and published. */
  done(key: string): void {
    this.#readReceived();
    const row = this.#rows.get(key);
    if (row !== undefined) this.#show(row, { state: 'done' });
  }

  /** What the requests in flight wait for. */
  get awaited(): Awaited | undefined {
    return this.#source === undefined ? 'answer' : this.#source.fetcher.awaited;
  }

  /** The layers that changed since the last call. */
  changes(): readonly LayerProgress[] {
    this.#readReceived();
    const changed = Array.from(this.#changed, (key) => this.#rows.get(key)!.shown);
    this.#changed.clear();
    return changed;
  }

  #readReceived(): void {
    if (this.#source === undefined) return;
    const { keys, fetcher } = this.#source;
    for (const [i, bytes] of fetcher.receivedByLayer().entries()) {
      const row = this.#rows.get(keys[i]!);
      if (row === undefined || !row.isPlanned || row.shown.state === 'done') continue;
      const receivedBytes = row.beforeBytes + bytes;
      const { totalBytes } = row.shown;
      const state = receivedBytes >= totalBytes ? 'verifying' : bytes > 0 ? 'fetching' : row.shown.state;
      // An image can have a thousand layers, of which some dozen change between two calls.
      if (receivedBytes === row.shown.receivedBytes && state === row.shown.state) continue;
      this.#show(row, { receivedBytes, state });
    }
  }

  #show(row: Row, change: Partial<LayerProgress>): void {
    const shown = { ...row.shown, ...change };
    const names = Object.keys(change) as (keyof LayerProgress)[];
    if (names.some((name) => shown[name] !== row.shown[name])) this.#set({ ...row, shown });
  }

  #set(row: Row): void {
    this.#rows.set(row.key, row);
    this.#changed.add(row.key);
  }
}
