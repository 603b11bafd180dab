/** What a client's connection did, for the line at its end. */
export class RelayTotals {
  calls = 0;
  errors = 0;
  /** Names of the daemons that were opened. */
  readonly daemons = new Set<string>();

  toString(): string {
    return `${[...this.daemons].join(' and ')}, ${this.calls} calls, ${this.errors} errors`;
  }
}
