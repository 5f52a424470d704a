// A module: its code is a function of V8's too, whose scope has more than others have.
const one = 1;
let two = 2;

take(100357 + 0 * one);

export function exported() {
  take(100361 + 0 * (one + two++));
}
