import { XdrError, type XdrReader } from './xdr-reader.js';
import type { XdrWriter } from './xdr-writer.js';

/** A typed parameter as the wire carries it: a field name, a type and a value of that type. */
export type TypedParameter = { readonly field: string } & TypedValue;

export type TypedValue =
  | { readonly type: 'int' | 'unsigned' | 'double'; readonly value: number }
  | { readonly type: 'hyper' | 'unsignedHyper'; readonly value: bigint }
  | { readonly type: 'boolean'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string };

/**
 * Longest field name and longest string value in bytes that libvirt accepts; it was seen to refuse
 * a name of 80.
 */
const maxFieldLength = 79;
const maxStringLength = 4_194_304;

/** Wire numbers of the types, in order from 1. */
const types = [
  'int',
  'unsigned',
  'hyper',
  'unsignedHyper',
  'double',
  'boolean',
  'string',
] as const satisfies readonly TypedParameter['type'][];

/** Smallest encoding of one parameter in bytes: empty name, type, four bytes of value. */
const smallest = 12;

export function writeTypedParameters(
  writer: XdrWriter,
  parameters: readonly TypedParameter[],
): void {
  writer.unsigned(parameters.length);
  for (const parameter of parameters) {
    writer.string(parameter.field).int(types.indexOf(parameter.type) + 1);
    switch (parameter.type) {
      case 'int':
        writer.int(parameter.value);
        break;
      case 'unsigned':
        writer.unsigned(parameter.value);
        break;
      case 'double':
        writer.double(parameter.value);
        break;
      case 'hyper':
        writer.hyper(parameter.value);
        break;
      case 'unsignedHyper':
        writer.unsignedHyper(parameter.value);
        break;
      case 'boolean':
        writer.bool(parameter.value);
        break;
      case 'string':
        writer.string(parameter.value);
        break;
    }
  }
}

/** Reads an array of at most `max` typed parameters. Throws XdrError. */
export function readTypedParameters(reader: XdrReader, max: number): TypedParameter[] {
  const count = reader.count('params', max, smallest);
  return Array.from({ length: count }, () => readTypedParameter(reader));
}

function readTypedParameter(reader: XdrReader): TypedParameter {
  const field = reader.string('params.field', maxFieldLength);
  const offset = reader.offset;
  const number = reader.int('params.type');
  const type = types[number - 1];
  switch (type) {
    case 'int':
      return { field, type, value: reader.int(field) };
    case 'unsigned':
      return { field, type, value: reader.unsigned(field) };
    case 'double':
      return { field, type, value: reader.double(field) };
    case 'hyper':
      return { field, type, value: reader.hyper(field) };
    case 'unsignedHyper':
      return { field, type, value: reader.unsignedHyper(field) };
    case 'boolean':
      return { field, type, value: reader.bool(field) };
    case 'string':
      return { field, type, value: reader.string(field, maxStringLength) };
    default:
      throw new XdrError(`params.type of ${field}`, offset, `${number} is no type`);
  }
}
