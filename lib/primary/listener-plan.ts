import { join } from 'node:path';
import type { Configuration } from '../config/configuration.js';
import type { ListenerSettings, SocketFile } from './listener.js';

/** A UNIX socket that the configuration asks for. */
export interface PlannedPath {
  readonly settings: ListenerSettings;
  readonly file: SocketFile;
}

/** The UNIX sockets of the configuration: read-write, and read-only in system mode. */
export function plannedPaths({ conf, mode, paths }: Configuration): PlannedPath[] {
  const plan = (
    name: string,
    readOnly: boolean,
    auth: ListenerSettings['auth'],
    permissions: string,
  ): PlannedPath => {
    const path = join(paths.runDirectory, name);
    return {
      settings: {
        transport: 'unix',
        auth,
        readOnly,
        name: path,
        backlog: conf.max_queued_clients,
      },
      file: { path, mode: parseInt(permissions, 8), group: conf.unix_sock_group },
    };
  };
  const readWrite = plan('libvirt-sock', false, conf.auth_unix_rw, conf.unix_sock_rw_perms);
  if (mode === 'session') return [readWrite];
  return [readWrite, plan('libvirt-sock-ro', true, conf.auth_unix_ro, conf.unix_sock_ro_perms)];
}
