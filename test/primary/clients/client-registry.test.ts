import { expect } from 'chai';
import type { LoginStage, Transport } from '../../../lib/control/messages.js';
import { ClientRegistry, type Client } from '../../../lib/primary/clients/client-registry.js';
import { clientOf } from './client.js';

interface Case {
  readonly origin?: string;
  readonly stage?: LoginStage;
  /** Milliseconds for which it has been its turn; null: no worker has taken it yet. */
  readonly silentFor?: number | null;
  readonly transport?: Transport;
  readonly isBeingEvicted?: boolean;
  readonly loggedIn?: boolean;
}

const now = 1_000_000;

function clientIn(id: number, its: Case): Client {
  const { silentFor = 60_000, transport = 'tls', origin = 'a', stage = 'silent' } = its;
  const { isBeingEvicted = false, loggedIn = false } = its;
  return clientOf(
    { id, transport, auth: 'sasl', local: null },
    {
      connectedAt: now,
      origin,
      silentSince: silentFor === null ? null : now - silentFor,
      stage,
      isBeingEvicted,
      loggedIn,
    },
  );
}

const several = (count: number, its: Case): Case[] => Array.from({ length: count }, () => its);

interface Row {
  readonly what: string;
  /** Those that are there, oldest first. */
  readonly there: readonly Case[];
  readonly waiting?: readonly Case[];
  readonly newcomer?: Case;
  /** Index of the one that is evicted. */
  readonly expected: number | null;
}

const table: readonly Row[] = [
  { what: 'nobody when nobody is there', there: [], expected: null },
  { what: 'the oldest of equals', there: several(3, {}), expected: 0 },
  {
    what: 'nobody before his patience ends',
    there: [
      { silentFor: 99 },
      { stage: 'handshake', silentFor: 499 },
      { stage: 'login', silentFor: 4999 },
    ],
    expected: null,
  },
  { what: 'who is silent for 0.1 s', there: [{ silentFor: 99 }, { silentFor: 100 }], expected: 1 },
  {
    what: 'who shakes hands for 0.5 s',
    there: [
      { stage: 'handshake', silentFor: 499 },
      { stage: 'handshake', silentFor: 500 },
    ],
    expected: 1,
  },
  {
    what: 'who logs in for 5 s',
    there: [
      { stage: 'login', silentFor: 4999 },
      { stage: 'login', silentFor: 5000 },
    ],
    expected: 1,
  },
  {
    what: 'the earliest stage of one origin',
    there: [{ stage: 'login' }, { stage: 'handshake' }, { stage: 'silent' }, { stage: 'silent' }],
    expected: 2,
  },
  { what: 'nobody whom no worker has taken', there: [{ silentFor: null }], expected: null },
  {
    what: 'nobody whose turn it is not',
    there: [{ stage: 'login', silentFor: 0 }],
    expected: null,
  },
  {
    what: 'nobody who is being evicted already',
    there: [{ isBeingEvicted: true }],
    expected: null,
  },
  { what: 'nobody who has logged in', there: [{ loggedIn: true }], expected: null },
  {
    what: 'no local client in its login',
    there: [{ transport: 'unix', stage: 'login' }],
    expected: null,
  },
  { what: 'a local client that is silent', there: [{ transport: 'unix' }], expected: 0 },
  {
    what: 'one of the origin that has most, however far it has come',
    there: [{ origin: 'b' }, { stage: 'login' }, { stage: 'handshake' }],
    expected: 2,
  },
  {
    what: 'one of the origin of which most wait',
    there: [{ origin: 'b' }, { origin: 'c' }],
    waiting: several(2, { origin: 'c' }),
    expected: 1,
  },
  {
    what: 'none for his connections that have logged in',
    there: [{}, { origin: 'b' }, ...several(3, { origin: 'b', loggedIn: true })],
    expected: 0,
  },
  {
    what: 'nobody soon for one of a flood',
    there: [{ origin: 'b', stage: 'handshake', silentFor: 4999 }],
    waiting: several(11, {}),
    expected: null,
  },
  {
    what: 'even for one of a flood who has been silent ten times as long',
    there: [{ origin: 'b', stage: 'handshake', silentFor: 5000 }],
    waiting: several(11, {}),
    expected: 0,
  },
  {
    what: 'one of a flood for its own kind',
    there: [
      { origin: 'b', stage: 'handshake', silentFor: 600 },
      { stage: 'handshake', silentFor: 500 },
    ],
    waiting: several(20, {}),
    expected: 1,
  },
  {
    what: 'as usual for one of ten',
    there: [{ origin: 'b', stage: 'handshake', silentFor: 500 }],
    waiting: several(10, {}),
    expected: 0,
  },
];

describe('primary/clients/client-registry', () => {
  describe('evicts', () => {
    for (const { what, there, waiting = [], newcomer = {}, expected } of table) {
      it(what, () => {
        const clients = new ClientRegistry();
        const all = there.map((its, index) => clientIn(index, its));
        for (const client of all) clients.add(client);
        const census = clients.census(waiting.map((its) => clientIn(-1, its)));
        const candidate = clients.evictionCandidate(clientIn(-2, newcomer), census, now);
        expect(candidate === null ? null : all.indexOf(candidate.client)).to.equal(expected);
      });
    }
  });
});
