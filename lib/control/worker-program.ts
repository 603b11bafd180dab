import { fileURLToPath } from 'node:url';

/** What a worker process runs: the file that it begins with. */
export const workerProgram = fileURLToPath(new URL('../worker/main.js', import.meta.url));
