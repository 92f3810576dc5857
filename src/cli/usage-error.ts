/**
 * Wrong usage, found before the engine is loaded: a PullError of code `option-malformed` in everything but its class,
 * which comes with the whole engine and would make a typing error cost three times as much.
 */
export class UsageError extends Error {
  readonly code = 'option-malformed';
  readonly exitCode = 2;
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.name = 'UsageError';
    this.hint = hint;
  }
}
