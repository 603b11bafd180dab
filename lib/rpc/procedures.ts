import { program } from './frame.js';
import { procedureRows } from './procedure-rows.js';

/** Drivers with a daemon of their own beside the hypervisor's. */
export const secondaryDrivers = [
  'interface',
  'network',
  'nodedev',
  'nwfilter',
  'secret',
  'storage',
] as const;
export type SecondaryDriver = (typeof secondaryDrivers)[number];

/** Who serves a procedure. */
export type Route = 'session' | 'hypervisor' | SecondaryDriver;

export interface Procedure {
  readonly program: number;
  readonly number: number;
  readonly name: string;
  readonly route: Route;
  /** Sent by the server, never called. */
  readonly isEvent: boolean;
  /** The call opens a stream. */
  readonly opensStream: boolean;
  /** Descriptors travel with the call, with its reply, or not at all. */
  readonly descriptors: 'request' | 'reply' | null;
  /** The call asks the daemon to send events, or to stop. */
  readonly registration: 'register' | 'deregister' | null;
  /**
   * A callback's id comes first: in the event, in the reply to the registration, in the
   * deregistration's arguments.
   */
  readonly carriesCallback: boolean;
  /** The call may change something; it does not merely ask, convert or register for events. */
  readonly changesState: boolean;
  /** The call is for the proxy itself, or the proxy looks at it before the daemon does. */
  readonly isOwn: boolean;
}

const programsByName: ReadonlyMap<string, number> = new Map([
  ['remote', program.remote],
  ['qemu', program.qemu],
  ['lxc', program.lxc],
]);

const routes: ReadonlySet<string> = new Set<Route>(['session', 'hypervisor', ...secondaryDrivers]);

const isRoute = (text: string | undefined): text is Route => text !== undefined && routes.has(text);

/** What may stand in a row behind its route. */
const knownMarks: ReadonlySet<string> = new Set([
  'event',
  'read',
  'write',
  'fds-request',
  'fds-reply',
  'change',
  'register',
  'deregister',
  'callback',
  'own',
]);

/**
 * Throws when a row has no known program or route, no number, no name, or marks nobody knows: an
 * edit of the table went wrong.
 */
export function parseProcedures(rows: string): Procedure[] {
  return rows
    .trim()
    .split('\n')
    .map((row) => {
      const [programName = '', number = '', name = '', route, ...marks] = row.split(' ');
      const programNumber = programsByName.get(programName);
      const unknown = marks.filter((mark) => !knownMarks.has(mark));
      if (
        programNumber === undefined ||
        !/^[1-9]\d{0,3}$/.test(number) ||
        name === '' ||
        !isRoute(route) ||
        unknown.length > 0
      ) {
        throw new Error(`procedure table: cannot read the row "${row}"`);
      }
      return {
        program: programNumber,
        number: Number(number),
        name,
        route,
        isEvent: marks.includes('event'),
        opensStream: marks.includes('read') || marks.includes('write'),
        descriptors: marks.includes('fds-request')
          ? 'request'
          : marks.includes('fds-reply')
            ? 'reply'
            : null,
        registration: marks.includes('register')
          ? 'register'
          : marks.includes('deregister')
            ? 'deregister'
            : null,
        carriesCallback: marks.includes('callback'),
        changesState: marks.includes('change'),
        isOwn: route === 'session' || marks.includes('own'),
      };
    });
}

export const procedures: readonly Procedure[] = parseProcedures(procedureRows);

/** Procedures of each program by number; where the table has none there is a hole. */
const byNumber = new Map<number, Procedure[]>();
for (const procedure of procedures) {
  const list = byNumber.get(procedure.program) ?? [];
  list[procedure.number] = procedure;
  byNumber.set(procedure.program, list);
}
const remoteProcedures = byNumber.get(program.remote) ?? [];

/** Programs whose calls are forwarded. */
export function isForwardedProgram(number: number): boolean {
  return number === program.remote || byNumber.has(number);
}

/**
 * The table's row, or undefined for a number it does not know, which a newer libvirt may have given
 * a meaning.
 */
export function procedureAt(programNumber: number, number: number): Procedure | undefined {
  if (programNumber === program.remote) return remoteProcedures[number];
  return byNumber.get(programNumber)?.[number];
}

/** The name of a program whose procedures are known: `remote`, `qemu` or `lxc`. */
export function programName(number: number): string {
  for (const [name, known] of programsByName) if (known === number) return name;
  return `program ${number}`;
}

/** Whether a call may change something. One that the table does not know may. */
export function changesState(programNumber: number, number: number): boolean {
  return procedureAt(programNumber, number)?.changesState ?? true;
}

/** A procedure's name for log lines: the table's, or its number. */
export function procedureName(programNumber: number, number: number): string {
  return procedureAt(programNumber, number)?.name ?? `procedure ${number}`;
}
