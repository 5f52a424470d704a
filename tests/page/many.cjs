// A call tree as a large program has it: so many call paths, each of 18 to 21 functions, that
// share their first ones.

/** As `/api/services/{service}/tree` answers. */
function manyPaths(count) {
  const names = [""];
  const parents = [0];
  const functions = [0];
  const values = [0];
  const children = new Map();
  let seed = 1;
  const random = (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let i = 0; i < 4000; i += 1) names.push(`crate::module${i % 97}::Type${i % 31}<T>::function${i}`);
  const child = (parent, name) => {
    const key = parent * 5000 + name;
    if (!children.has(key)) {
      children.set(key, parents.length);
      parents.push(parent);
      functions.push(name);
      values.push(0);
    }
    return children.get(key);
  };
  const chosen = new Set();
  while (chosen.size < count) {
    const bytes = 4096 * (1 + random(50));
    const way = [0];
    const depth = 18 + random(4);
    for (let level = 0; level < depth; level += 1) {
      const choices = level < 14 ? 2 : 1;
      way.push(child(way[way.length - 1], 1 + ((level * 137 + random(choices) * 29) % 4000)));
    }
    chosen.add(way[way.length - 1]);
    for (const node of way) values[node] += bytes;
  }
  const span = { since: 1, until: 2, is_difference: false };
  return { spans: [span], names, parents, functions, values: [values], left_out: 0 };
}

module.exports = { manyPaths };
