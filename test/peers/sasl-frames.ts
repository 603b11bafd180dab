import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';

/** The client's side of the SASL procedures (PROTOCOL.md, "Session procedures"). */

const maxLength = 65_536;

/** AUTH_SASL_START; `data` null is a NULL buffer. */
export function encodeSaslStart(mechanism: string, data: Buffer | null): Buffer {
  return encodeData(new XdrWriter().string(mechanism), data);
}

/** AUTH_SASL_STEP. */
export function encodeSaslStep(data: Buffer | null): Buffer {
  return encodeData(new XdrWriter(), data);
}

/** The reply to AUTH_SASL_INIT. */
export function readMechanisms(payload: Buffer): string[] {
  return new XdrReader(payload).string('mechanisms', maxLength).split(',');
}

/** The reply to AUTH_SASL_START and AUTH_SASL_STEP. */
export function readSaslReply(payload: Buffer): { complete: boolean; data: Buffer | null } {
  const reader = new XdrReader(payload);
  const complete = reader.bool('complete');
  const isNull = reader.bool('nil');
  const data = Buffer.alloc(reader.count('data', maxLength, 4));
  for (let at = 0; at < data.length; at++) data.writeInt8(reader.int('data'), at);
  return { complete, data: isNull ? null : data };
}

function encodeData(writer: XdrWriter, data: Buffer | null): Buffer {
  writer.bool(data === null).unsigned(data?.length ?? 0);
  for (const char of new Int8Array(data ?? [])) writer.int(char);
  return writer.finish();
}
