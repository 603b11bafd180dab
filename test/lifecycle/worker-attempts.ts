/**
 * Preloaded by `node --import` into the processes of a service: in a worker it tries what a worker
 * must not be able to do, and says what came of it on the standard error, which the primary logs.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync } from 'node:fs';

/** Of the environment: files that must not be read, with colons between them. */
export const secretsVariable = 'ATTEMPT_SECRETS';
/** A program with a set-user-ID bit that prints its effective user. */
export const programVariable = 'ATTEMPT_PROGRAM';

const attempts: readonly (readonly [string, () => unknown])[] = [
  ...(process.env[secretsVariable] ?? '').split(':').map((file) => {
    return [`read ${file}`, () => closeSync(openSync(file, 'r'))] as const;
  }),
  ['signal the primary', () => process.kill(process.ppid, 'SIGTERM')],
  ["read the primary's memory", () => closeSync(openSync(`/proc/${process.ppid}/mem`, 'r'))],
  ["read the primary's descriptors", () => readdirSync(`/proc/${process.ppid}/fd`)],
  ['become root', () => process.setuid?.(0)],
  ['have the groups of root', () => process.setgroups?.([0])],
];

if (process.argv[1]?.endsWith('worker/main.js') === true) {
  for (const [what, attempt] of attempts) {
    let outcome = 'done';
    try {
      attempt();
    } catch (error) {
      outcome = (error as NodeJS.ErrnoException).code ?? String(error);
    }
    process.stderr.write(`attempt to ${what}: ${outcome}\n`);
  }
  const program = process.env[programVariable];
  if (program !== undefined) {
    const said = execFileSync(program, ['-u'], { encoding: 'utf8', env: {} }).trim();
    process.stderr.write(`attempt to gain by a set-user-ID program: user ${said}\n`);
  }
}
