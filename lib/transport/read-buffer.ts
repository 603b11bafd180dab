/**
 * One buffer for all sockets of the process: the kernel fills it, the listener uses it, and nobody
 * else reads in between, since reading and the listener's call happen in one go. It holds more than
 * a UNIX socket queues by default, so a peer that sends much has one read for each time that it
 * could write.
 */
export const readBuffer = Buffer.allocUnsafeSlow(256 * 1024);
