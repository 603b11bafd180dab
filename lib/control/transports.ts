/** What a client's connection runs over. */
export const transports = ['unix', 'tcp', 'tls'] as const;
export type Transport = (typeof transports)[number];
