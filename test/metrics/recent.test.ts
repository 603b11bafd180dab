import { expect } from 'chai';
import { durationBounds } from '../../lib/control/worker-report.js';
import { quantileOf, Recent } from '../../lib/metrics/recent.js';
import { WorkerTotals } from '../../lib/metrics/worker-totals.js';
import { bucketOf, reportOf } from './reports.js';

describe('recent calls', () => {
  it('have quantiles, evenly spread within a bucket', () => {
    const counts = Array<number>(durationBounds.length + 1).fill(0);
    expect(quantileOf(counts, 0.5)).to.equal(null);
    counts[bucketOf(0.01)] = 90;
    counts[bucketOf(1)] = 10;
    expect(quantileOf(counts, 0.45)).to.be.closeTo(0.0075, 1e-9);
    expect(quantileOf(counts, 0.9)).to.be.closeTo(0.01, 1e-9);
    expect(quantileOf(counts, 0.95)).to.be.closeTo(0.75, 1e-9);
    counts[durationBounds.length] = 1000;
    expect(quantileOf(counts, 0.99)).to.equal(60);
  });

  it('have rates over the last ten seconds and a history of two minutes', () => {
    const [recent, totals] = [new Recent(), new WorkerTotals()];
    recent.take(totals, 0);
    expect(recent.rate('calls')).to.equal(0);
    for (let second = 1; second <= 200; second++) {
      totals.add(0, reportOf(second <= 190 ? 100 : 20, second <= 100 ? 1 : 0.01, 10));
      recent.take(totals, second * 1000);
    }
    expect(recent.rate('calls')).to.be.closeTo(20, 1e-9);
    expect(recent.rate('errors')).to.be.closeTo(10, 1e-9);
    expect(recent.rate('bytesIn')).to.be.closeTo(20 * 28, 1e-9);
    expect(recent.rate('bytesOut')).to.be.closeTo(20 * 56, 1e-9);
    expect(recent.daemonRate('virtqemud')).to.be.closeTo(20, 1e-9);
    expect(recent.daemonRate('virtlxcd')).to.equal(0);
    expect(recent.callHistory()).to.have.length(120);
    expect(recent.callHistory().at(0)).to.be.closeTo(100, 1e-9);
    // The slow calls are older than a minute.
    expect(recent.quantile(0.99)).to.be.at.most(0.01);
    expect(recent.quantile(0.99, 'virtlxcd')).to.equal(null);
  });
});
