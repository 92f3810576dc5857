/** Variables that hold credentials: the main thread alone looks them up. */
const CREDENTIALS: ReadonlySet<string> = new Set(['DOCKER_AUTH_CONFIG']);

/** What threads see of the environment: threads that fetch hold no credentials but the header they send. */
export function workerEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !CREDENTIALS.has(name)));
}
