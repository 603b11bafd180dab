/**
 * Makes something that many may ask for, but no more often than all so many milliseconds: who asks
 * before that gets the last one, and who asks while one is being made gets that.
 */
export class BrieflyKept<Value> {
  private kept: Promise<Value> | null = null;

  constructor(
    private readonly make: () => Promise<Value>,
    private readonly milliseconds: number,
  ) {}

  get(): Promise<Value> {
    if (this.kept !== null) return this.kept;
    const made = this.make();
    this.kept = made;
    const forget = (): void => {
      setTimeout(() => (this.kept = null), this.milliseconds).unref();
    };
    made.then(forget, forget);
    return made;
  }
}
