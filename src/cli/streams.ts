/** The shell's own exit code for a command that cannot write its result. */
const WRITE_FAILED_EXIT_CODE = 1;

/**
 * What happens when nobody reads on: a closed pipe on stdout ends the process quietly, as `head` expects; any other
 * failure to write the result (a full disk) is an error. Talk on stderr that nobody hears is no reason to stop.
 */
export function guardStreams(): void {
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    process.stderr.write(`zpull: cannot write to standard output: ${error.message}\n`);
    process.stderr.write('hint: make room where the output goes, then run the same command again\n');
    process.exit(WRITE_FAILED_EXIT_CODE);
  });
}
