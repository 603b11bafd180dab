// Rooms may import only from the rooms named here: native -> rpc -> transport -> auth -> worker | primary.
// A room inside another is bound by both: worker/daemon by worker's row too.
const rooms = {
  native: [],
  rpc: [],
  config: ['native', 'rpc'],
  logging: ['config', 'native'],
  transport: ['native', 'rpc', 'logging'],
  auth: ['native', 'rpc', 'config', 'logging', 'transport'],
  control: ['config', 'transport', 'logging'],
  worker: ['native', 'rpc', 'config', 'logging', 'transport', 'auth', 'control'],
  admin: ['native', 'rpc', 'config', 'logging', 'transport', 'control'],
  metrics: ['rpc', 'config', 'logging', 'transport', 'control'],
  primary: ['native', 'config', 'logging', 'transport', 'auth', 'control', 'admin', 'metrics'],
  'worker/reports': [],
  'worker/daemon': ['worker/reports'],
  'worker/relay': ['worker/daemon', 'worker/reports'],
  'worker/client': ['worker/relay', 'worker/daemon', 'worker/reports'],
  'primary/workers': [],
  'primary/listeners': [],
  'primary/clients': ['primary/listeners', 'primary/workers'],
  'primary/daemons': ['primary/clients', 'primary/workers'],
  'primary/host': ['primary/listeners'],
  cli: ['native', 'config', 'logging', 'primary', 'auth'],
};

/** Of no room: whoever tells of an error may import it. */
const errorText = '^lib/error-text\\.ts$';

/** Where a room's row counts: all of lib, or the room around it. */
const houseOf = (room) => (room.includes('/') ? room.replace(/[^/]+$/, '') : '');

module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-file-nobody-uses',
      severity: 'error',
      from: { orphan: true, pathNot: ['\\.test\\.ts$'] },
      to: {},
    },
    {
      name: 'lib-never-imports-test',
      severity: 'error',
      from: { path: '^lib/' },
      to: { path: '^test/' },
    },
    {
      name: 'no-dev-dependency-in-lib',
      severity: 'error',
      from: { path: '^lib/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'], pathNot: '@types/' },
    },
    ...Object.entries(rooms).map(([room, allowed]) => ({
      name: `room-${room}`,
      comment: `lib/${room} may import only itself and: ${allowed.join(', ') || 'nothing'}`,
      severity: 'error',
      from: { path: `^lib/${room}/` },
      to: {
        path: `^lib/${houseOf(room)}`,
        pathNot: [errorText, ...[room, ...allowed].map((name) => `^lib/${name}/`)],
      },
    })),
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
};
