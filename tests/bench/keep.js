// A filter in JavaScript, for the measurement of swaps with a large component: keeps the rows whose `stars` are at least `with.least`. Made a component by
// `componentize` of the npm package @bytecodealliance/componentize-js 0.23, with wit/plugin.wit and `world only-transform { export transform; }`, and the features
// random, stdio, clocks, http and fetch-event disabled, so that it imports nothing.
const VERSION = "1.0.0";
let least = 0n;
const of = (request) => JSON.parse(request).config ?? {};
export const transform = {
  about: () => JSON.stringify({ name: "keep", version: VERSION, summary: "Keeps what has stars enough." }),
  describe: () => JSON.stringify({ reads: [{ path: "stars", type: "int", required: true }], outputs: [{ name: "out", base: "extend" }] }),
  init(request) {
    least = BigInt(of(request).least ?? 0);
  },
  process(batch) {
    const stars = batch.fields[0].values.val;
    const rows = [];
    for (let row = 0; row < batch.rows; row++) if (stars[row] >= least) rows.push(row);
    return { outcome: { tag: "select", val: Uint32Array.from(rows) }, rejects: [] };
  },
};
