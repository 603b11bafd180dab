/**
 * The program as tests start it: the same as bin/virtproxyd, but the build that lies beside this
 * file.
 */
import { main } from '../../lib/cli/main.js';

const exitStatus = await main(process.argv.slice(2));
if (exitStatus !== null) process.exit(exitStatus);
