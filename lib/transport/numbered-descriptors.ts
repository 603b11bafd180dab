import type { Socket } from 'node:net';
import { sendWithDescriptors } from '../native/descriptor-passing.js';
import { NativeError } from '../native/error.js';
import { handleOf } from './node-socket.js';
import type { SocketStream } from './socket-stream.js';

/**
 * Descriptors passed over a UNIX socket that carries nothing else. Each has a number by which the
 * receiver knows what it is for; one message has several, their numbers as its bytes.
 */
export interface NumberedDescriptor {
  /** A whole number, 0 to 2 ** 53 - 1. */
  readonly number: number;
  readonly descriptor: number;
}

const numberBytes = 8;

/**
 * Sends descriptors, `maximumDescriptors` at most; they stay open here.
 * @returns false when the socket is full, too many are on their way or the kernel has no memory:
 *   try again later
 * @throws {NativeError} when the socket is closed at either end
 */
export function sendNumbered(socket: Socket, descriptors: readonly NumberedDescriptor[]): boolean {
  const numbers = Buffer.alloc(numberBytes * descriptors.length);
  descriptors.forEach(({ number }, index) => numbers.writeDoubleLE(number, numberBytes * index));
  const files = descriptors.map(({ descriptor }) => descriptor);
  try {
    // A socket takes a message this small whole or not at all.
    return sendWithDescriptors(fdOf(socket), numbers, files) !== 'would-block';
  } catch (error) {
    if (error instanceof NativeError && isTransient(error)) return false;
    throw error;
  }
}

const isTransient = ({ code }: NativeError): boolean =>
  code === 'ETOOMANYREFS' || code === 'ENOMEM' || code === 'ENOBUFS';

/** Who waits for numbered descriptors. */
export interface NumberedReceiver {
  /** The descriptor belongs to the receiver from now on. */
  arrived(number: number, descriptor: number): void;
  /** It came, but this process may open no more files. */
  lost(number: number): void;
}

/**
 * Tells `receiver` of all descriptors that arrive on a stream. That it cannot be read from any more
 * is thrown where nobody catches it.
 */
export function receiveNumbered(stream: SocketStream, receiver: NumberedReceiver): void {
  // The kernel never joins what came with descriptors to what was sent later (unix(7)), so that one
  // read is one message.
  const numbersIn = (bytes: Buffer): number[] =>
    Array.from({ length: bytes.length / numberBytes }, (_, index) =>
      bytes.readDoubleLE(numberBytes * index),
    );
  stream.receive({
    received: (bytes, descriptors) => {
      numbersIn(bytes).forEach((number, index) => {
        const descriptor = descriptors[index];
        if (descriptor !== undefined) receiver.arrived(number, descriptor);
      });
    },
    lost: (bytes) => {
      for (const number of numbersIn(bytes)) receiver.lost(number);
    },
  });
  const ignore = (): void => undefined;
  stream.listen({
    bytes: ignore,
    drained: ignore,
    closed: (error) => {
      // Nothing would come any more, and nobody would know.
      if (error !== null) throw error;
    },
  });
}

function fdOf(socket: Socket): number {
  return socket.destroyed ? -1 : handleOf(socket).fd;
}
