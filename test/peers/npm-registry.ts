import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { run, searchPath } from './clients.js';

interface Manifest {
  readonly name: string;
  readonly version: string;
}

/** A registry that has the packages of one node_modules, in the one version that each has there. */
export class NpmRegistry {
  private readonly server: Server;

  private constructor(
    private readonly modules: string,
    /** Where tarballs are made. */
    private readonly directory: string,
  ) {
    this.server = createServer((request, response) => {
      const path = decodeURIComponent(request.url ?? '/').slice(1);
      const tarball = /^(.*)\/-\/package\.tgz$/.exec(path)?.[1];
      void (tarball === undefined ? this.about(path) : this.pack(tarball)).then(
        (body) => response.writeHead(body === null ? 404 : 200).end(body),
        () => response.writeHead(500).end(),
      );
    });
  }

  /** `directory` is for files of its own. */
  static async listen(modules: string, directory: string): Promise<NpmRegistry> {
    const registry = new NpmRegistry(modules, directory);
    await once(registry.server.listen(0, '127.0.0.1'), 'listening');
    return registry;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await once(this.server.close(), 'close');
  }

  /** What npm asks of a package first. Null when there is no such package. */
  private async about(name: string): Promise<string | null> {
    const file = join(this.modules, name, 'package.json');
    if (!existsSync(file)) return null;
    const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
    const content = await this.pack(name);
    const integrity = `sha512-${createHash('sha512').update(content).digest('base64')}`;
    const dist = { integrity, tarball: `${this.url}${name}/-/package.tgz` };
    return JSON.stringify({
      name,
      'dist-tags': { latest: manifest.version },
      versions: { [manifest.version]: { ...manifest, dist } },
    });
  }

  private async pack(name: string): Promise<Buffer> {
    const file = join(this.directory, `${name.replace('/', '+')}.tgz`);
    if (!existsSync(file)) {
      const { code, stderr } = await run(
        'tar',
        ['-C', join(this.modules, name), '-czf', file, '--transform', 's,^\\.,package,', '.'],
        { env: { PATH: searchPath } },
      );
      if (code !== 0) throw new Error(stderr);
    }
    return readFileSync(file);
  }
}
