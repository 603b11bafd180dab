import { Authority, purpose, type CertificateFiles } from './certificates.js';
import { freePorts } from './ports.js';

/** A certificate authority with a server and a client, and a port to listen on with them. */
export class TlsPki {
  private constructor(
    readonly ca: Authority,
    readonly client: CertificateFiles,
    readonly port: number,
    /** Keys of virtproxyd.conf. */
    readonly conf: Readonly<Record<string, string | number>>,
    private readonly directory: string,
  ) {}

  /** Its files are in `directory`, which must exist. */
  static async create(directory: string): Promise<TlsPki> {
    const ca = Authority.create(directory, 'authority');
    const server = ca.issue('server', { purpose: purpose.server });
    const client = ca.issue('client');
    const [port] = (await freePorts(1)) as [number];
    const conf = {
      listen_tls: 1,
      tls_port: String(port),
      ca_file: ca.cert,
      cert_file: server.cert,
      key_file: server.key,
    };
    return new TlsPki(ca, client, port, conf, await ca.pkiDirectory('pki', client));
  }

  /** For virsh and its kin. */
  uri(driver = 'qemu'): string {
    return `${driver}+tls://localhost:${this.port}/system?pkipath=${this.directory}`;
  }
}
