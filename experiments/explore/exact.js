"use strict";
// The linear-Gaussian model p(z) = N(mu, I), p(x|z) = N(z, I), q(z|x) = N(m, v I), exactly.
//
// A setting is {delta, offset, v, alpha}: delta = m - (x + mu)/2 and offset = x - mu, arrays of D
// numbers; v > 0; alpha from 0 (IWAE) to 1 (ELBO). r = w/p(x), t = 1 - alpha, rho = r^t, and
// u = z - (x + mu)/2 ~ N(delta, v I) under q. Values are in nats. The names are those of
// models/exact/linear_gaussian*.py, whose tests these functions are held to.
const gaussian = (() => {
  const S = 0.5;  // the posterior's variance
  const EULER = 0.5772156649015329;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const squared = (vector) => sum(vector.map((x) => x * x));

  const logLikelihood = ({ offset }) =>
    -0.5 * offset.length * Math.log(4 * Math.PI) - squared(offset) / 4;

  const elboGap = ({ delta, v }) =>
    (delta.length / 2) * (2 * v - 1 - Math.log(2 * v)) + squared(delta);

  // The density proportional to r^n q: log E[r^n], its mean over delta, its variance; NaN where
  // E[r^n] is infinite.
  function tilt({ delta, v }, n) {
    const a = n / S, b = (1 - n) / v, precision = a + b > 0 ? a + b : NaN;
    const each = -0.5 * n * Math.log(S) + 0.5 * (n - 1) * Math.log(v) - 0.5 * Math.log(precision);
    const logMass = delta.length * each - ((0.5 * a * b) / precision) * squared(delta);
    return { logMass, shift: b / precision, variance: 1 / precision };
  }

  // Where VR-IWAE goes as K grows: the variational Renyi bound of this order.
  function limit(setting) {
    const t = 1 - setting.alpha;
    if (t === 0) return logLikelihood(setting) - elboGap(setting);
    return logLikelihood(setting) + tilt(setting, t).logMass / t;
  }

  // log(1 + chi^2) of the weights rho: K over it is the effective sample size as K grows.
  function log1pChiSquare(setting) {
    const t = 1 - setting.alpha;
    return tilt(setting, 2 * t).logMass - 2 * tilt(setting, t).logMass;
  }

  const rms = (means, variances) =>
    Math.sqrt(sum(means.map((m, d) => (m * m) / variances[d])) / means.length);

  // Closed forms to leading order in 1/K; NaN where a moment is infinite. Ratios are root mean
  // squares over the coordinates, as experiments.snr pools what it measures.
  function leadingOrder(setting, K) {
    const { delta, offset, alpha } = setting, t = 1 - alpha;
    const one = tilt(setting, t), two = tilt(setting, 2 * t);
    const ratio = Math.exp(log1pChiSquare(setting));
    // d log E[r^(nt)] / d delta over t delta is -(n/S) shift.
    const first = -one.shift / S, second = (-2 * two.shift) / S;
    const phi = delta.map((d) => d * (first - (ratio / (2 * K)) * (second - 2 * first)));
    const theta = delta.map((d, i) => offset[i] / 2 + one.shift * d);
    const spread = delta.map(
      (d) => (ratio / K) * (two.variance + ((two.shift - one.shift) * d) ** 2));
    return {
      bound: limit(setting) - (t === 0 ? 0 : (ratio - 1) / (2 * K * t)),
      theta: rms(theta, spread),
      phi: rms(phi, spread.map((x) => x / (S * S))),
      dreg: rms(phi, dregVariance(setting, K)),
    };
  }

  // By the delta method, as in `log_sd_phi_dreg` of models/exact/linear_gaussian_theory.py.
  function dregVariance(setting, K) {
    const { delta, v, alpha } = setting;
    const tilts = [0, 1, 2, 3, 4].map((n) => tilt(setting, n * (1 - alpha)));
    const slope = 1 / v - 1 / S;
    return delta.map((d) => {
      // E[rho^n g^degree] / E[rho]^n as [log scale, factor].
      const moment = (n, degree) => {
        const mean = slope * tilts[n].shift * d - d / v;
        const factors = [1, mean, mean * mean + slope * slope * tilts[n].variance];
        return [tilts[n].logMass - n * tilts[1].logMass, factors[degree]];
      };
      const [logA1, a1] = moment(1, 1), [logA2, a2] = moment(2, 1), logK = Math.log(K);
      const pieces = [
        [1, 1, 0, alpha], [2, 1, -logK, 1 - alpha],
        [1, 0, logA1, -alpha * a1], [1, 0, logA2 - logK, -2 * (1 - alpha) * a2],
      ].filter((piece) => piece[3] !== 0);
      const terms = [];
      for (const [n, i, logC, c] of pieces) {
        for (const [m, j, logD, e] of pieces) {
          const joint = moment(n + m, i + j), left = moment(n, i), right = moment(m, j);
          terms.push([logC + logD + joint[0], c * e * joint[1]]);
          terms.push([logC + logD + left[0] + right[0], -c * e * left[1] * right[1]]);
        }
      }
      const top = Math.max(...terms.map((term) => term[0]));
      return (Math.exp(top) * sum(terms.map(([log, x]) => x * Math.exp(log - top)))) / K;
    });
  }

  // Nodes of q, each [log rho, its mass, and given it E[u] and E[u^2] along delta, and E[u^2] of a
  // coordinate across it]. log r is quadratic in the distance of u from a center; at v = S it is
  // linear in u instead.
  function nodes({ delta, v, alpha }) {
    const D = delta.length, t = 1 - alpha, distance = Math.sqrt(squared(delta)), sd = Math.sqrt(v);
    const constant = 0.5 * D * Math.log(v / S), bend = 1 / S - 1 / v;
    if (bend === 0) {
      const points = rule(-REACH, REACH, (t * distance) / sd, (noise) => -0.5 * noise * noise);
      return points.map(([noise, mass]) => {
        const u = distance + sd * noise;
        return [t * (constant - (u * u) / (2 * S) + 0.5 * noise * noise), mass, u, u * u, v];
      });
    }
    const center = -distance / (v * bend), shift = distance - center;
    const top = constant + ((0.5 * distance * distance) / v) * (1 + 1 / (v * bend));
    const middle = Math.sqrt(shift * shift + v * D), reach = REACH * sd;
    // From y, so that the rule ends smoothly where the distance does, at 0.
    const inner = (y) => y - Math.exp(-y);
    const radius = (y) => sd * (Math.max(inner(y), 0) + Math.log1p(Math.exp(-Math.abs(inner(y)))));
    const cosines = (r) => bessel(D / 2, (r * Math.abs(shift)) / v);
    const logDensity = (y) => {
      const r = radius(y), change = Math.log1p(Math.exp(-y)) - Math.log1p(Math.exp(-inner(y)));
      return change + (D - 1) * Math.log(r) - (0.5 * (r * r + shift * shift)) / v + cosines(r)[0];
    };
    const first = middle > reach ? (middle - reach) / sd : -4.5;
    const steepest = t * Math.abs(bend) * sd * (middle + reach);
    return rule(first, (middle + reach) / sd, steepest, logDensity).map(([y, mass]) => {
      const r = radius(y), share = cosines(r)[1];
      const parallel = (Math.sign(shift) * r * r * Math.abs(shift) * share) / v;
      const u = center + parallel;
      const uu = center * (center + 2 * parallel) + r * r * (1 - (D - 1) * share);
      return [t * (top - 0.5 * bend * r * r), mass, u, uu, r * r * share];
    });
  }

  // Of a direction whose density is proportional to exp(z cos) on the sphere in 2 b dimensions:
  // the log of its mean over the sphere, 0F1(b; z^2/4), and E[cos] / z, which is also the mean
  // square of a coordinate across. A series of positive terms, from its largest on.
  function bessel(b, z) {
    const x = (z * z) / 4, peak = Math.max(0, Math.floor((1 - b + Math.hypot(b - 1, z)) / 2));
    let total = 0, share = 0;
    const add = (term, k) => {
      total += term;
      share += term / (b + k);
    };
    for (let k = peak, term = 1; term > 1e-18; k++, term *= x / (k * (b + k - 1))) add(term, k);
    for (let k = peak, term = 1; k > 0 && term > 1e-18; k--) {
      add((term *= (k * (b + k - 1)) / x), k - 1);
    }
    const log = peak && peak * Math.log(x) - logGamma(peak + 1) - logGamma(b + peak) + logGamma(b);
    return [log + Math.log(total), (0.5 * share) / total];
  }

  function logGamma(x) {
    let shift = 0;
    for (; x < 15; x++) shift -= Math.log(x);
    const series = 1 / (12 * x) - 1 / (360 * x ** 3) + 1 / (1260 * x ** 5) - 1 / (1680 * x ** 7);
    return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series;
  }

  // A trapezoidal rule, which converges faster than any power of its step: nodes, and masses that
  // sum to 1. `steepest` is the slope of log rho over a node.
  function rule(first, last, steepest, logDensity) {
    const step = Math.min(0.2, 0.38 / steepest), points = [];
    for (let i = 0; first + i * step <= last; i++) points.push(first + i * step);
    const logs = points.map(logDensity), top = Math.max(...logs);
    const masses = logs.map((log) => Math.exp(log - top)), total = sum(masses);
    return points.map((point, i) => [point, masses[i] / total]);
  }

  const REACH = 10.5;  // deviations, beyond which draws are rarer than K^-3, the noise of DReG
  const STEP = 0.25;  // of log s
  const NEGLIGIBLE = -46;  // log X, under which exp(-X) is 1 and its K-th power as well
  const BEYOND = 4.2;  // log X, over which exp(-X) is 0

  // Laplace transforms. With X = s rho, expectations under q of exp(-X) times powers of X, of u and
  // of g = d log w / dz (what DReG weighs), on a grid of log s. All K are made of these.
  function transforms(setting) {
    const { delta, v } = setting, distance = Math.sqrt(squared(delta)), slope = 1 / v - 1 / S;
    const all = nodes(setting), logs = all.map((node) => node[0]);
    const least = Math.min(...logs), most = Math.max(...logs);
    const start = NEGLIGIBLE - most;
    const size = Math.ceil((BEYOND - least - start) / STEP) + 1;
    const width = Math.ceil((BEYOND - NEGLIGIBLE) / STEP), growth = Math.exp(STEP);
    const make = () => new Float64Array(size);
    // The digit is the power of X; _ is across delta.
    const log = make(), u1 = make(), g1 = make(), g2 = make(), uu2 = make(), u_2 = make();
    const gg2 = make(), gg3 = make(), u_3 = make(), gg4 = make(), u_4 = make();
    const beyond = make();
    for (const [logRho, mass, u, uu, square] of all) {
      const g = slope * u - distance / v;
      const gg = slope * slope * uu - (2 * slope * u * distance) / v + (distance / v) ** 2;
      const begin = Math.max(0, Math.ceil((NEGLIGIBLE - logRho - start) / STEP));
      const end = Math.min(size, begin + width);
      if (end < size) beyond[end] += mass;
      let X = Math.exp(start + begin * STEP + logRho);
      for (let j = begin; j < end; j++, X *= growth) {
        const less = Math.expm1(-X);
        const e1 = mass * (1 + less) * X, e2 = e1 * X, e3 = e2 * X, e4 = e3 * X;
        log[j] += mass * less;
        u1[j] += e1 * u;
        g1[j] += e1 * g;
        g2[j] += e2 * g;
        uu2[j] += e2 * uu;
        u_2[j] += e2 * square;
        gg2[j] += e2 * gg;
        gg3[j] += e3 * gg;
        u_3[j] += e3 * square;
        gg4[j] += e4 * gg;
        u_4[j] += e4 * square;
      }
    }
    // So far it holds the part of E[exp(-X)] - 1 within the windows; beyond them exp(-X) is 0.
    for (let j = 0, gone = 0; j < size; j++) {
      gone += beyond[j];
      log[j] = Math.log1p(Math.max(log[j] - gone, 1e-16 - 1));
    }
    return { setting, start, most, log, u1, g1, g2, uu2, u_2, gg2, gg3, u_3, gg4, u_4 };
  }

  // Exact at any K, from log x = int (exp(-c) - exp(-c x)) dc / c for the bound, and from
  // 1 / x^n = int s^(n-1) exp(-s x) ds / (n-1)! for gradients, which are sums over sums of rho.
  function finite(of, K) {
    const { setting, start, most } = of, { delta, offset, v, alpha } = setting, t = 1 - alpha;
    let log = 0, log2 = 0, u = 0, uu = 0, u_ = 0, g = 0, gg = 0, g_ = 0;
    for (let j = 0; j < of.log.length; j++) {
      const c = start + most + j * STEP + Math.log(K);
      const difference = STEP * (Math.exp(-Math.exp(c)) - Math.exp(K * of.log[j]));
      log += difference;
      log2 -= 2 * c * difference;
      const one = K * STEP * Math.exp((K - 1) * of.log[j]);
      const two = K > 1 ? K * (K - 1) * STEP * Math.exp((K - 2) * of.log[j]) : 0;
      u += one * of.u1[j];
      uu += one * of.uu2[j] + two * of.u1[j] ** 2;
      u_ += one * of.u_2[j];
      g += one * (alpha * of.g1[j] + t * of.g2[j]);
      gg += alpha * alpha * (one * of.gg2[j] + two * of.g1[j] ** 2);
      gg += alpha * t * (one * of.gg3[j] + two * of.g1[j] * of.g2[j]);
      gg += ((t * t) / 6) * (one * of.gg4[j] + two * of.g2[j] ** 2);
      g_ += one * (alpha * alpha * of.u_2[j] + alpha * t * of.u_3[j] + ((t * t) / 6) * of.u_4[j]);
    }
    // Var log x is that of log(exponential / x) less that of log(exponential), pi^2/6.
    const variance = log2 + EULER ** 2 - (EULER + log) ** 2;
    const logP = logLikelihood(setting), distance = Math.sqrt(squared(delta));
    const along = delta.map((d) => (distance > 0 ? d / distance : 0));
    const spread = (parallel, across) => along.map((e) => across + (parallel - across) * e * e);
    const pathwise = spread(uu - u * u, u_);
    const slope = 1 / v - 1 / S;
    return {
      bound: t === 0 ? logP - elboGap(setting) : logP + (log + most) / t,
      deviation: Math.sqrt(
        t === 0 ? logWeightVariance(setting) / K : Math.max(variance, 0) / (t * t)),
      theta: rms(along.map((e, d) => offset[d] / 2 + u * e), pathwise),
      phi: rms(along.map((e) => u * e), pathwise),
      dreg: rms(along.map((e) => g * e), spread(gg - g * g, slope * slope * g_)),
      means: [-u / S, g],
    };
  }

  // Of log w under q, in nats^2.
  const logWeightVariance = ({ delta, v }) =>
    (delta.length / 2) * (1 - v / S) ** 2 + (v * squared(delta)) / (S * S);

  return {
    S, elboGap, finite, leadingOrder, limit, log1pChiSquare, logLikelihood, logWeightVariance,
    transforms,
  };
})();
