import { account, type Account } from './clients.js';

/**
 * Whom the workers of all proxies in system mode run as in this run of the tests, if it is to be
 * so: see CONTRIBUTING.md.
 */
export function testWorkerUser(): Account | null {
  const name = process.env['TEST_WORKER_USER'] ?? '';
  return name === '' ? null : account(name);
}
