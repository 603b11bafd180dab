/** When the first certificate of the file expires. Milliseconds since the epoch. */
export interface CertificateExpiry {
  readonly server: number;
  readonly ca: number;
}
