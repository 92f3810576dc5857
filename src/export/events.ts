/** What an export tells while it runs. Advice for a display. Sizes in bytes. */
export type ExportEvent =
  /** What there is to write is known. */
  | { readonly event: 'exporting'; readonly destination: string; readonly totalBytes: number }
  /** About ten times a second. */
  | { readonly event: 'written'; readonly writtenBytes: number; readonly totalBytes: number }
  | { readonly event: 'warning'; readonly message: string };
