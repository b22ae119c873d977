"""Writes tests/golden/statistics/peers.json: what SciPy and statsmodels answer to small data sets.
docs/testing.md says how to run it.

The bootstrap is compared draw by draw: SciPy gets the cases that Isoscan draws. Values are multiples of
1/1024, so that every sum is exact and two draws of the same cases in another order have the same mean.
"""
import importlib.metadata
import json
import math
import pathlib

import numpy as np
import scipy.stats as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower, tt_ind_solve_power
from statsmodels.stats.proportion import proportion_confint

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "statistics" / "peers.json"
PACKAGES = ("numpy", "scipy", "statsmodels")
REPLICATES = 2000
SITE, SEED = "st-marys", 7
WORD = 0xFFFFFFFF


def philox(counter, key):
    """Philox4x32-10 (docs/references.md#salmon2011); the counter's words may be arrays."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [int(word) for word in key]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [p1 >> np.uint64(32) ^ c[1] ^ np.uint64(k[0]), p1 & np.uint64(WORD),
             p0 >> np.uint64(32) ^ c[3] ^ np.uint64(k[1]), p0 & np.uint64(WORD)]
        k = [k[0] + 0x9E3779B9 & WORD, k[1] + 0xBB67AE85 & WORD]
    return c


def first_words(seed, name):
    """The first block of RandomStream(seed, name) in common/random/philox.cc."""
    state = [seed & WORD, seed >> 32, 0x69736F73, 0x63616E31]
    data = name.encode()
    blocks = [int.from_bytes(data[i:i + 8], "little") for i in range(0, len(data), 8)] + [len(data)]
    for block in blocks:
        state = [s ^ int(m) for s, m in zip(state, philox(state, (block & WORD, block >> 32)))]
    return [int(word) for word in philox((0, 0, 0, 0), state[:2])]


class Draws(np.random.Generator):
    """The cases of common/statistics/bootstrap_means.cc, replicate after replicate."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def integers(self, low, high=None, size=None, dtype="int64", endpoint=False):
        replicates, cases = size
        key = first_words(SEED, "bootstrap " + SITE)[:2]
        block, replicate = np.meshgrid(np.arange(-(-cases // 4)), np.arange(replicates))
        words = np.stack(philox((block, 0 * block, replicate, 0 * block), key), axis=-1)
        words = words.reshape(replicates, -1)[:, :cases]
        return (words * np.uint64(cases) >> np.uint64(32)).astype(np.int64)


def dyadic(values):
    return np.round(np.asarray(values) * 1024) / 1024


def samples():
    random = np.random.default_rng(1)
    skewed = lambda n: dyadic(random.beta(9, 1.6, n))
    yield "skewed, 10 cases", skewed(10)
    yield "skewed, 33 cases", skewed(33)
    yield "skewed, 100 cases", skewed(100)
    yield "with misses", np.concatenate([np.zeros(5), skewed(25)])
    yield "differences", dyadic(random.normal(0.01, 0.03, 21))
    yield "two cases", dyadic([0.5, 0.75])
    yield "few values", dyadic([0.25, 0.25, 0.5, 0.5, 0.5, 1.0, 1.0])


def studentised(values, level):
    """Of scipy's draws; the formula is that of docs/references.md#efron1993, 12.5."""
    drawn = values[Draws().integers(0, values.size, (REPLICATES, values.size))]
    error = values.std(ddof=1) / math.sqrt(values.size)
    deviation = drawn.mean(axis=1) - values.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(deviation == 0, 0, deviation / (drawn.std(axis=1, ddof=1) / math.sqrt(values.size)))
    if not np.isfinite(t).all():
        return None
    low, high = np.quantile(t, [(1 - level) / 2, 1 - (1 - level) / 2])
    return [values.mean() - high * error, values.mean() - low * error]


def bootstraps():
    for name, values in samples():
        for level in (0.8, 0.95):
            entry = {"name": name, "values": values.tolist(), "level": level}
            for method in ("percentile", "bca"):
                result = st.bootstrap((values,), np.mean, n_resamples=REPLICATES, confidence_level=level,
                                      method=method, rng=Draws())
                entry[method] = list(result.confidence_interval)
            entry["studentised"] = studentised(values, level)
            entry["student_t"] = list(st.ttest_1samp(values, 0).confidence_interval(level))
            yield entry


def proportions():
    for hits, n in ((0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (1, 30), (17, 100), (499, 500)):
        for level in (0.9, 0.95):
            test = st.binomtest(hits, n)
            yield {"hits": hits, "n": n, "level": level,
                   "clopper_pearson": list(test.proportion_ci(level, "exact")),
                   "wilson": list(proportion_confint(hits, n, 1 - level, "wilson"))}


def medians():
    """By scipy.stats.quantile_test, whose interval is of order statistics, too."""
    random = np.random.default_rng(2)
    for n in (6, 7, 10, 25, 60):
        values = np.sort(dyadic(random.beta(9, 1.6, n)))
        interval = st.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
        yield {"values": values.tolist(), "level": 0.95, "interval": list(interval)}


def p_values():
    for values in ([0.03, 0.01, 0.04, 0.005], [0.5, 0.5, 0.02], [0.2], [0.9, 0.001, 0.8, 0.01, 0.01, 0.7]):
        yield {"p": values, "adjusted": multipletests(values, method="holm")[1].tolist()}


def sign_flips():
    random = np.random.default_rng(3)
    for n in (2, 3, 6, 9, 13):
        for shift in (-0.02, 0.01, 0.04):
            values = dyadic(random.normal(shift, 0.03, n))
            test = st.permutation_test((values, np.zeros(n)), lambda x, y, axis: np.mean(x - y, axis=axis),
                                       permutation_type="samples", alternative="greater", n_resamples=np.inf)
            yield {"differences": values.tolist(), "p": float(test.pvalue)}


def welch(sd1, n1, sd2, n2, level, power):
    """Solved apart from Isoscan, with scipy's noncentral t."""
    from scipy.optimize import brentq
    v1, v2 = sd1 ** 2 / n1, sd2 ** 2 / n2
    degrees = (v1 + v2) ** 2 / (v1 ** 2 / (n1 - 1) + v2 ** 2 / (n2 - 1))
    critical = st.t.ppf(1 - (1 - level) / 2, degrees)
    shown = lambda nc: st.nct.sf(critical, degrees, nc) + st.nct.cdf(-critical, degrees, nc)
    return brentq(lambda nc: shown(nc) - power, 0, 8, xtol=1e-12) * math.sqrt(v1 + v2)


def smallest():
    for n in (3, 6, 15, 36, 62, 500):
        for power in (0.8, 0.9):
            effect = TTestPower().solve_power(nobs=n, alpha=0.05, power=power, alternative="two-sided")
            two = tt_ind_solve_power(nobs1=n, ratio=1, alpha=0.05, power=power, alternative="two-sided")
            yield {"n": n, "sd": 0.05, "power": power, "paired": float(effect) * 0.05, "unpaired": float(two) * 0.05}


def smallest_unequal():
    for sd1, n1, sd2, n2 in ((0.05, 15, 0.05, 40), (0.2, 6, 0.03, 100), (0.1, 10, 0.0, 10)):
        yield {"sd": [sd1, sd2], "n": [n1, n2], "difference": welch(sd1, n1, sd2, n2, 0.95, 0.8)}


def distributions():
    for degrees in (1, 2.5, 9, 99, 1e6):
        yield {"degrees": degrees, "quantile_975": float(st.t.ppf(0.975, degrees)),
               "probability_of_1": float(st.t.cdf(1, degrees)), "noncentral_2_3": float(st.nct.cdf(2, degrees, 3))}


def main():
    groups = {"bootstrap": bootstraps(), "proportions": proportions(), "medians": medians(), "holm": p_values(),
              "sign_flips": sign_flips(), "smallest": smallest(), "smallest_unequal": smallest_unequal(),
              "student_t": distributions()}
    head = {"versions": {package: importlib.metadata.version(package) for package in PACKAGES},
            "site": SITE, "seed": SEED, "replicates": REPLICATES}
    text = json.dumps(head)[1:-1]
    for name, entries in groups.items():
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        text += f',\n"{name}": [\n{lines}\n]'
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("{" + text + "}\n")


if __name__ == "__main__":
    main()
