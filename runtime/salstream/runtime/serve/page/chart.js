// The latency of the last two minutes, one point a second, as three lines with their scale.

const WIDTH = 120;
const HEIGHT = 40;
const SHORTEST = 30; // seconds that the width stands for at first

// history: [p50, p95, p99] in milliseconds or null where no map came; the newest at the end.
export function draw(plot, history) {
  const known = history.filter(Boolean);
  const top = roundUp(Math.max(...known.map((entry) => entry[2])));
  const seconds = Math.max(SHORTEST, history.length - 1);
  ["p50", "p95", "p99"].forEach((name, which) => {
    const points = history.flatMap((entry, place) => {
      if (!entry) return [];
      const x = WIDTH * (1 - (history.length - 1 - place) / seconds);
      return [`${x.toFixed(2)},${(HEIGHT * (1 - entry[which] / top)).toFixed(2)}`];
    });
    plot.querySelector(`.${name}`).setAttribute("points", points.join(" "));
  });
  const scale = known.length ? [`${text(top)} ms`, text(top / 2), "0"] : ["", "", ""];
  plot.querySelectorAll(".scale span").forEach((label, place) => {
    label.textContent = scale[place];
  });
  plot.querySelector(".begin").textContent = `${seconds} s ago`;
  const newest = known.at(-1);
  plot.querySelector("svg").setAttribute("aria-label", newest
    ? `Latency of the last ${seconds} seconds on a scale to ${text(top)} ms, `
      + `now ${newest.map((ms) => ms.toFixed(0)).join(", ")} ms`
    : "No latency yet");
}

// The next number above whose half is as short as itself: 60 for 47.
function roundUp(value) {
  if (!(value > 0 && value < Infinity)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 6, 8, 10].find((step) => step * power >= value);
}

function text(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 2 });
}
