// The latency of the last two minutes, one point a second, as three lines.

const WIDTH = 120;
const HEIGHT = 40;
const SHORTEST = 30; // seconds that the width stands for at first

// history: [p50, p95, p99] in milliseconds or null where no map came; the newest at the end.
export function draw(svg, history) {
  const known = history.filter(Boolean);
  const top = Math.max(1, ...known.map((entry) => entry[2])) * 1.1;
  const step = WIDTH / (Math.max(SHORTEST, history.length) - 1);
  ["p50", "p95", "p99"].forEach((name, which) => {
    const points = history.flatMap((entry, place) => {
      if (!entry) return [];
      const x = WIDTH - (history.length - 1 - place) * step;
      return [`${x.toFixed(2)},${(HEIGHT * (1 - entry[which] / top)).toFixed(2)}`];
    });
    svg.querySelector(`.${name}`).setAttribute("points", points.join(" "));
  });
  const newest = known.at(-1);
  svg.setAttribute("aria-label", newest
    ? `Latency of the last two minutes, now ${newest.map((ms) => ms.toFixed(0)).join(", ")} ms`
    : "No latency yet");
}
