const LOGIN =
  'zpull uses the credentials of docker and podman: docker login HOST or podman login HOST, or --creds';
const LOGOUT = 'zpull keeps no credentials: docker logout HOST or podman logout HOST';
const LIST = 'to list the images of the store: zpull store ls';
const REMOVE = 'to remove an image from the store: zpull store rm IMAGE';
const PRUNE = 'to free what no image of the store needs: zpull store prune';
const RUN =
  'to run it, give it to a tool that runs containers: zpull export IMAGE docker-archive:- | docker load';
const SAVE =
  'to write an image to a file: zpull export IMAGE docker-archive:FILE, or zpull copy IMAGE oci-archive:FILE';
const LOAD =
  'to pull from a file: zpull oci-archive:FILE; into docker: zpull export IMAGE docker-archive:- | docker load';
const PUSH = 'zpull only pulls: zpull copy IMAGE oci:DIR:TAG, then skopeo copy oci:DIR:TAG docker://NAME';
const TAGS = 'to list the tags of a repository: zpull tags NAME';
const INSPECT = 'to see what an image is made of: zpull inspect IMAGE';
const BUILD = 'zpull builds no images: docker build or podman build does, and buildah';
const UNPACK = 'to get the files of an image: zpull export IMAGE rootfs:DIR';
const MIRROR = 'to copy an image as it is: zpull copy IMAGE oci:DIR:TAG';
const VERSION = 'to see the version: zpull --version';

/**
 * Verbs of docker, podman, skopeo, crane, oras and ctr that are no commands here, with what to do
 * instead. No official image of Docker Hub has such a name.
 */
export const FOREIGN_VERBS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    login: LOGIN,
    logout: LOGOUT,
    auth: LOGIN,
    images: LIST,
    image: LIST,
    ls: LIST,
    list: LIST,
    ps: LIST,
    rmi: REMOVE,
    rm: REMOVE,
    remove: REMOVE,
    delete: REMOVE,
    prune: PRUNE,
    system: PRUNE,
    run: RUN,
    create: RUN,
    exec: RUN,
    start: RUN,
    save: SAVE,
    load: LOAD,
    import: LOAD,
    push: PUSH,
    tag: `zpull gives no images new names: copy it under one, zpull copy IMAGE oci:DIR:TAG; ${TAGS}`,
    'list-tags': TAGS,
    repo: TAGS,
    search: `zpull does not search registries: docker search or podman search does; ${TAGS}`,
    manifest: INSPECT,
    config: INSPECT,
    digest: INSPECT,
    history: INSPECT,
    build: BUILD,
    mount: UNPACK,
    unpack: UNPACK,
    sync: MIRROR,
    verify: 'to hash what is in the store again: zpull store verify',
    version: VERSION,
    info: `to see where the store is: zpull store path; ${VERSION}`,
  }),
);

/** Official images of Docker Hub whose names are nearly those of commands. */
export const IMAGES_NEAR_COMMANDS: ReadonlySet<string> = new Set(['storm']);

const RETRIES =
  'zpull counts no retries: received bytes buy patience, and --patience SECONDS (default 1) gives more of it';
const PLATFORM = 'name both by --platform OS/ARCH[/VARIANT]';

/** Options of other tools, without dashes, with zpull's way. */
export const FOREIGN_OPTIONS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    retry: RETRIES,
    retries: RETRIES,
    'retry-times': RETRIES,
    'retry-delay': RETRIES,
    'max-retries': RETRIES,
    arch: PLATFORM,
    os: PLATFORM,
    variant: PLATFORM,
    'override-arch': PLATFORM,
    'override-os': PLATFORM,
    all: 'zpull copy --all-platforms copies everything that an index names',
    a: 'zpull copy --all-platforms copies everything that an index names',
    'all-tags': 'zpull tags NAME lists the tags; zpull pulls the images that it is given',
    insecure: '--plain-http speaks http, and --tls-verify=false accepts any certificate',
    'insecure-registry': '--plain-http speaks http, and --tls-verify=false accepts any certificate',
    'src-tls-verify': 'write --tls-verify=false',
    'src-creds': 'write --creds USER[:PASS], or --username USER with --password-stdin',
    password: 'write --creds USER[:PASS], or --username USER with --password-stdin',
    'src-cert-dir': 'write --cert-dir DIR',
    'src-authfile': 'write --authfile FILE',
    'max-concurrent-downloads': 'write --connections N',
    pull: 'write --policy always, missing or never',
  }),
);
