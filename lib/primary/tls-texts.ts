import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import type { Configuration } from '../config/configuration.js';
import { tlsFiles } from '../config/paths.js';
import type { TlsTexts } from '../control/messages.js';

/** Reads the TLS files and checks them as far as the configuration asks. */
export function readTlsTexts({ mode, conf }: Configuration): TlsTexts {
  const { ca, crl, cert, key } = tlsFiles(mode, conf, homedir());
  const read = (path: string): string => readFileSync(path, 'utf8');
  return { ca: read(ca), crl: crl === null ? null : read(crl), cert: read(cert), key: read(key) };
}
