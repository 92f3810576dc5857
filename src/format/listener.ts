/**
 * Wraps a callback of the library's user so that it never throws. The first error that it throws,
 * or that its promise rejects with, goes to `failed`; after that it is not called again.
 */
export function guardListener<E>(
  listener: ((event: E) => unknown) | undefined,
  failed: (error: Error) => void,
): (event: E) => void {
  let isBroken = listener === undefined;
  const fail = (thrown: unknown) => {
    if (isBroken) return;
    isBroken = true;
    failed(
      thrown instanceof Error ? thrown : new Error(`a callback threw ${String(thrown)}`, { cause: thrown }),
    );
  };
  return (event) => {
    if (isBroken) return;
    try {
      const returned = listener?.(event);
      if (returned instanceof Object && 'then' in returned) Promise.resolve(returned).catch(fail);
    } catch (thrown) {
      fail(thrown);
    }
  };
}
