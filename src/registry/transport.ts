/** What the environment says about the network: variables that Go's, curl's and Node's users know. */
const VARIABLES = [
  'HOME',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'NODE_EXTRA_CA_CERTS',
  'HTTP_PROXY',
  'http_proxy',
  'HTTPS_PROXY',
  'https_proxy',
  'NO_PROXY',
  'no_proxy',
  'REQUEST_METHOD',
] as const;

export type NetworkEnvironment = Readonly<Partial<Record<(typeof VARIABLES)[number], string>>>;

/** How the servers of one registry are reached: plain data, which goes to workers with their set-up. */
export interface Transport {
  readonly tlsVerify: boolean;
  /** `host[:port]` as references have it: names the registry's directories of certificates. */
  readonly host: string;
  /** Stands for the registry's directories of certificates. */
  readonly certDir?: string;
  readonly environment: NetworkEnvironment;
  /** A redirect may lead from https to http. */
  readonly allowHttpStorage?: boolean | undefined;
}

/** Whether any proxy is named at all. */
export function namesProxy(environment: NetworkEnvironment): boolean {
  const { HTTP_PROXY, http_proxy, HTTPS_PROXY, https_proxy } = environment;
  return (HTTP_PROXY ?? http_proxy ?? HTTPS_PROXY ?? https_proxy) !== undefined;
}

/** Those variables of `env` that concern the network; an empty one is as none. */
export function networkEnvironment(env: NodeJS.ProcessEnv): NetworkEnvironment {
  const given = VARIABLES.flatMap((name) => (env[name] ? [[name, env[name]]] : []));
  return Object.fromEntries(given) as NetworkEnvironment;
}
