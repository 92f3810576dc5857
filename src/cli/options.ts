import { STAGES, type Stage } from '../measure/report.js';

/** An option as it is parsed and described. */
export interface OptionSpec {
  readonly name: string;
  readonly alias?: string;
  /** Stands for the value in help; a flag has none. */
  readonly placeholder?: string;
  readonly help: string;
  /** The default, in words. */
  readonly preset?: string;
  /** Name of the option that must be given with this one. */
  readonly needs?: string;
  /** Name of the option that contradicts this one. */
  readonly excludes?: string;
  readonly choices?: readonly string[];
  readonly number?: NumberRule;
  /** The value is a list of such numbers or words, separated by commas. */
  readonly list?: true;
  /** The field of its value, where another command has an option of this name with other values. */
  readonly field?: keyof OptionValues;
}

/** Whether an option takes no value but `true` or `false` after an equals sign. */
export function isFlag({ placeholder }: OptionSpec): boolean {
  return placeholder === undefined;
}

/** How an option's text is read as a number, and which numbers it may be. */
export interface NumberRule {
  readonly kind: 'whole' | 'decimal' | 'bytes' | 'duration';
  readonly min: number;
  readonly max: number;
  /** The unit in words: `seconds`. */
  readonly unit?: string;
}

/** The values of the options that a command line gives, by name. */
export interface OptionValues {
  readonly help?: boolean;
  readonly version?: boolean;
  readonly store?: string;
  readonly json?: boolean;
  readonly debug?: boolean;
  readonly platform?: string;
  readonly workers?: number;
  readonly connections?: number;
  readonly patience?: number;
  readonly 'connect-timeout'?: number;
  readonly 'idle-timeout'?: number;
  readonly 'answer-timeout'?: number;
  readonly policy?: (typeof POLICIES)[number];
  readonly 'allow-foreign'?: boolean;
  readonly 'insecure-policy'?: boolean;
  readonly 'limit-rate'?: number;
  readonly 'plain-http'?: boolean;
  readonly 'allow-http-storage'?: boolean;
  readonly 'tls-verify'?: boolean;
  readonly 'cert-dir'?: string;
  readonly authfile?: string;
  readonly creds?: string;
  readonly username?: string;
  readonly 'password-stdin'?: boolean;
  readonly progress?: (typeof PROGRESS_KINDS)[number];
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  readonly port?: number;
  readonly host?: string;
  readonly latency?: number;
  readonly 'rate-per-connection'?: number;
  readonly rate?: number;
  readonly faults?: string;
  readonly files?: number;
  readonly 'older-than'?: number;
  readonly 'dry-run'?: boolean;
  readonly output?: string;
  readonly force?: boolean;
  readonly path?: string;
  readonly 'no-same-owner'?: boolean;
  readonly 'all-platforms'?: boolean;
  readonly runs?: number;
  readonly 'workers-list'?: readonly number[];
  readonly 'connections-list'?: readonly number[];
  readonly stage?: Stage;
  readonly from?: string;
  readonly against?: readonly string[];
  readonly 'json-file'?: string;
  readonly html?: string;
  readonly compare?: string;
  readonly 'fail-if-slower'?: number;
  readonly yes?: boolean;
}

/** A day; no timer can wait longer than 24.8 days. */
const DAY_SECONDS = 86_400;
/**
 * As many threads as the largest machines have cores; each costs 20 to 35 MB before it does
 * anything.
 */
const MAX_WORKERS = 512;
/** More looks like an attack to a registry, and nears the usual limit of 1024 open files. */
const MAX_CONNECTIONS = 1000;

const SECONDS: NumberRule = { kind: 'decimal', min: 0.001, max: DAY_SECONDS, unit: 'seconds' };
const RATE: NumberRule = { kind: 'bytes', min: 1, max: Number.MAX_SAFE_INTEGER };

const POLICIES = ['always', 'missing', 'never'] as const;
const PROGRESS_KINDS = ['auto', 'tty', 'plain', 'json', 'none'] as const;

/** Options that every command takes. */
export const COMMON_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'store',
    placeholder: 'DIR',
    help: 'the store',
    preset: '$ZPULL_STORE, else $XDG_DATA_HOME/zpull, else ~/.local/share/zpull',
  },
  { name: 'json', help: 'the result, or the error, as one JSON object a line on stdout' },
  { name: 'debug', help: 'a line a request, and the stack of an error' },
  { name: 'help', alias: 'h', help: 'show this help' },
  { name: 'version', alias: 'V', help: 'show the version' },
];

/** Option of the commands that print warnings. */
export const QUIET: OptionSpec = { name: 'quiet', alias: 'q', help: 'say nothing but errors on stderr' };

/** Options of the commands that pull. */
export const PULL_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'platform',
    placeholder: 'OS/ARCH[/VARIANT]',
    help: 'which image of a multi-platform one; ARCH alone is that of linux',
    preset: '$DOCKER_DEFAULT_PLATFORM, else linux and this architecture',
  },
  {
    name: 'workers',
    placeholder: 'N',
    help: 'worker threads',
    preset: 'the cores this process may use, at most 16',
    number: { kind: 'whole', min: 1, max: MAX_WORKERS },
  },
  {
    name: 'connections',
    placeholder: 'N',
    help: 'range requests in flight, all layers together',
    preset: '16',
    number: { kind: 'whole', min: 1, max: MAX_CONNECTIONS },
  },
  {
    name: 'patience',
    placeholder: 'SECONDS',
    help: 'how long received bytes count against failures: a larger value survives more of them; there is no number of retries to give',
    preset: '1',
    number: SECONDS,
  },
  {
    name: 'connect-timeout',
    placeholder: 'SECONDS',
    help: 'one failure when a connection takes longer',
    preset: '5',
    number: SECONDS,
  },
  {
    name: 'idle-timeout',
    placeholder: 'SECONDS',
    help: 'one failure when an answer that has begun is silent for longer',
    preset: '10',
    number: SECONDS,
  },
  {
    name: 'answer-timeout',
    placeholder: 'SECONDS',
    help: 'one failure when an open connection takes longer to begin its answer',
    preset: '60',
    number: SECONDS,
  },
  {
    name: 'policy',
    placeholder: 'WHEN',
    help: 'when the registry is asked',
    preset: 'always, for an export missing',
    choices: POLICIES,
  },
  { name: 'allow-foreign', help: 'fetch foreign layers from where the manifest says, without credentials' },
  {
    name: 'insecure-policy',
    help: 'pull although policy.json asks for a signature, which is not checked; what it rejects stays rejected',
  },
  {
    name: 'limit-rate',
    placeholder: 'RATE',
    help: 'bytes a second that all layers together receive, like 10M',
    number: RATE,
  },
  { name: 'plain-http', help: 'speak http, not https' },
  {
    name: 'allow-http-storage',
    help: 'follow redirects of an https registry to a storage in http, without credentials',
  },
  { name: 'tls-verify', help: 'check the certificates of registries', preset: 'true' },
  {
    name: 'cert-dir',
    placeholder: 'DIR',
    help: 'certificates for the registry: *.crt, and *.cert with *.key',
    preset: 'certs.d/HOST in ~/.config/containers, /etc/containers, /etc/docker',
  },
  {
    name: 'authfile',
    placeholder: 'FILE',
    help: 'the only file to look for credentials in',
    preset: '$REGISTRY_AUTH_FILE, else those of podman and docker',
  },
  {
    name: 'creds',
    placeholder: 'USER[:PASS]',
    help: 'credentials for the registry; others on this machine can see them',
    excludes: 'username',
  },
  {
    name: 'username',
    placeholder: 'USER',
    help: 'user name at the registry',
    needs: 'password-stdin',
  },
  { name: 'password-stdin', help: 'read the password from standard input', needs: 'username' },
  {
    name: 'progress',
    placeholder: 'KIND',
    help: 'how progress is shown on stderr',
    preset: 'auto',
    choices: PROGRESS_KINDS,
  },
  QUIET,
  { name: 'verbose', alias: 'v', help: 'also tell of layers and network failures' },
];

/** Options of PULL_OPTIONS that are about an image, not about how a registry is asked. */
const IMAGE_OPTIONS: ReadonlySet<string> = new Set([
  'platform',
  'workers',
  'connections',
  'policy',
  'allow-foreign',
  'insecure-policy',
  'limit-rate',
  'allow-http-storage',
]);

/** Options of `tags`. */
export const REGISTRY_OPTIONS = PULL_OPTIONS.filter(({ name }) => !IMAGE_OPTIONS.has(name));

export const OUTPUT_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'output',
    placeholder: 'DEST',
    help: 'also write the image there, as zpull export or zpull copy does; a copy fetches the blobs once more',
  },
];

/** Options of the commands that write an image somewhere. */
export const EXPORT_OPTIONS: readonly OptionSpec[] = [
  { name: 'force', help: 'write into a directory that is not empty; what has the same names is replaced' },
  { name: 'no-same-owner', help: 'leave the files of a rootfs to the user who exports, as tar does' },
];

/** Options of `export` alone. */
export const PATH_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'path',
    placeholder: 'PATH',
    help: 'only this file or directory of the image, for rootfs: and tar:; links in the image are followed',
  },
];

export const COPY_OPTIONS: readonly OptionSpec[] = [
  { name: 'all-platforms', help: 'everything that a multi-platform image has' },
];

export const SERVE_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'port',
    placeholder: 'N',
    help: 'port to listen on, 0 for a free one',
    preset: '0',
    number: { kind: 'whole', min: 0, max: 65_535 },
  },
  { name: 'host', placeholder: 'ADDRESS', help: 'address to listen on', preset: '127.0.0.1' },
  {
    name: 'latency',
    placeholder: 'MS',
    help: 'wait before each answer',
    preset: '0',
    number: { kind: 'decimal', min: 0, max: 600_000, unit: 'milliseconds' },
  },
  {
    name: 'rate-per-connection',
    placeholder: 'RATE',
    help: 'bytes a second on each connection, like 20M',
    number: RATE,
  },
  { name: 'rate', placeholder: 'RATE', help: 'bytes a second over all connections', number: RATE },
  { name: 'faults', placeholder: 'FILE', help: 'JSON list of rules that break answers' },
];

export const DEMO_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'files',
    placeholder: 'N',
    help: 'files in the sample image',
    preset: '1050',
    number: { kind: 'whole', min: 1, max: 100_000 },
  },
];

export const BENCH_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'runs',
    placeholder: 'N',
    help: 'how often each figure is measured',
    preset: '5',
    // With 1000 runs a figure is as good as it gets.
    number: { kind: 'whole', min: 1, max: 1000 },
  },
  {
    name: 'workers',
    field: 'workers-list',
    placeholder: 'LIST',
    help: 'numbers of worker threads to try, like 1,2,4',
    preset: '1 and the cores this process may use',
    number: { kind: 'whole', min: 1, max: MAX_WORKERS },
    list: true,
  },
  {
    name: 'connections',
    field: 'connections-list',
    placeholder: 'LIST',
    help: 'numbers of connections to try, like 1,16',
    preset: '1,4,8,16,32 while more of them help',
    number: { kind: 'whole', min: 1, max: MAX_CONNECTIONS },
    list: true,
  },
  {
    name: 'stage',
    placeholder: 'STAGE',
    help: 'measure only this; the verdict needs all',
    preset: 'all',
    choices: STAGES,
  },
  {
    name: 'from',
    placeholder: 'IMAGE',
    help: 'an older image: also measure the update from it',
  },
  {
    name: 'against',
    placeholder: 'LIST',
    help: 'other programs to measure in turn: skopeo, crane, podman, ctr, curl, docker',
    list: true,
  },
  { name: 'json', field: 'json-file', placeholder: 'FILE', help: 'write every figure there, - for stdout' },
  { name: 'html', placeholder: 'FILE', help: 'write a page with charts there' },
  { name: 'compare', placeholder: 'FILE', help: 'compare with what --json wrote earlier' },
  {
    name: 'fail-if-slower',
    placeholder: 'PERCENT',
    help: 'exit code 9 when a figure is slower beyond noise and by more than this',
    needs: 'compare',
    number: { kind: 'decimal', min: 0, max: 1_000_000, unit: 'percent' },
  },
  { name: 'yes', help: 'fetch more than 5 GB without asking' },
];

export const STORE_OPTIONS: readonly OptionSpec[] = [
  {
    name: 'older-than',
    placeholder: 'TIME',
    help: 'prune only what was not written for so long, like 30d, 12h or 90m',
    number: { kind: 'duration', min: 0, max: 36_500 * DAY_SECONDS },
  },
  { name: 'dry-run', help: 'tell what prune would free, and delete nothing' },
];
