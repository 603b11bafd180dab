// Rooms may import only from the rooms named here; lib/README is the design's arrow:
// native -> rpc -> transport -> auth -> worker | primary.
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
  cli: ['native', 'config', 'logging', 'primary', 'auth'],
};

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
      to: { path: '^lib/', pathNot: [room, ...allowed].map((name) => `^lib/${name}/`) },
    })),
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
};
