/** Takes over from a stream's listener what arrives. */
export interface DescriptorReceiver {
  /**
   * Bytes arrived; `bytes` is overwritten after the call. `descriptors`, which belong to the
   * receiver from now on, came with their last.
   */
  received(bytes: Buffer, descriptors: number[]): void;
  /**
   * Bytes arrived whose descriptors are lost, since this process may open no more files. Where
   * nobody can say what that means the socket is closed.
   */
  lost?(bytes: Buffer): void;
}

/** The way of descriptors beside the bytes of a stream: SCM_RIGHTS over a UNIX socket. */
export interface DescriptorPassage {
  /**
   * From now on, for the stream's whole life, bytes are read in a way that loses no descriptor, and
   * go to `receiver`; what else the stream has to tell still goes to its listener.
   */
  receive(receiver: DescriptorReceiver): void;
  /**
   * Sends one byte 0 with each descriptor, behind what was written so far and before what will be.
   * The descriptors belong to the stream from now on: it closes them.
   */
  send(descriptors: number[]): void;
}
