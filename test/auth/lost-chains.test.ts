import { expect } from 'chai';
import { losesChains } from '../../lib/auth/lost-chains.js';
import { chainWarnings } from '../../lib/auth/tls-credentials.js';

describe('Node.js that loses the chains of clients', () => {
  const losing = ['v24.21.0', 'v24.21.1', 'v26.8.0', 'v26.8.1', 'v26.8.2'];
  const keeping = ['v20.19.0', 'v22.23.3', 'v24.20.0', 'v24.2.0', 'v26.7.0', 'v26.8.3', 'v26.9.0'];

  it('is told by its version', () => {
    expect(losing.filter((version) => losesChains(version))).to.deep.equal(losing);
    expect(keeping.filter((version) => losesChains(version))).to.deep.equal([]);
  });

  it('is warned of with a revocation list, and without one not', () => {
    const [warning, ...others] = chainWarnings('/pki/crl.pem', 'v24.21.0');
    expect(warning).to.contain('Node.js v24.21.0').and.to.contain('/pki/crl.pem');
    expect(others).to.deep.equal([]);
    expect(chainWarnings(null, 'v24.21.0')).to.deep.equal([]);
    expect(chainWarnings('/pki/crl.pem', 'v26.9.0')).to.deep.equal([]);
  });
});
