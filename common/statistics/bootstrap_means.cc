#include "common/statistics/bootstrap_means.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "common/random/philox.h"
#include "common/statistics/distributions.h"
#include <omp.h>

namespace isoscan {
namespace {

// As ISOSCAN_VECTOR_CLONES of client/kernels, which common does not see: the build contracts no
// multiplication with an addition, so every clone computes the same bits.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ISOSCAN_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define ISOSCAN_VECTOR_CLONES
#endif

// Doubles of a cache line.
constexpr std::size_t kLanes = 8;
using Lanes = std::array<double, kLanes>;

// Two sums of alternate draws: no addition waits for the one before.
ISOSCAN_VECTOR_CLONES void SumRows(const Lanes* rows, const std::uint32_t* drawn, std::size_t count,
                                   Lanes& sum) {
  Lanes even{};
  Lanes odd{};
  for (std::size_t i = 0; i + 1 < count; i += 2) {
    const Lanes& row = rows[drawn[i]];
    const Lanes& next = rows[drawn[i + 1]];
    for (std::size_t lane = 0; lane < kLanes; ++lane) even[lane] += row[lane];
    for (std::size_t lane = 0; lane < kLanes; ++lane) odd[lane] += next[lane];
  }
  if (count % 2 == 1) {
    const Lanes& row = rows[drawn[count - 1]];
    for (std::size_t lane = 0; lane < kLanes; ++lane) even[lane] += row[lane];
  }
  for (std::size_t lane = 0; lane < kLanes; ++lane) sum[lane] = even[lane] + odd[lane];
}

// Philox4x32 of counters {first + i, 0, replicate, 0}, i = 0, 1, ..., in vectors.
constexpr std::size_t kBlocks = 16;
ISOSCAN_VECTOR_CLONES void PhiloxBlocks(std::uint32_t first, std::uint32_t replicate,
                                        std::array<std::uint32_t, 2> key,
                                        std::array<std::uint32_t, 4 * kBlocks>& words) {
  std::array<std::uint64_t, kBlocks> c0;
  std::array<std::uint64_t, kBlocks> c1{};
  std::array<std::uint64_t, kBlocks> c2;
  std::array<std::uint64_t, kBlocks> c3{};
  for (std::size_t i = 0; i < kBlocks; ++i) {
    c0[i] = first + static_cast<std::uint32_t>(i);
    c2[i] = replicate;
  }
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < kBlocks; ++i) {
      const std::uint64_t product0 = std::uint64_t{0xD2511F53} * static_cast<std::uint32_t>(c0[i]);
      const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * static_cast<std::uint32_t>(c2[i]);
      c0[i] = product1 >> 32 ^ c1[i] ^ key[0];
      c1[i] = static_cast<std::uint32_t>(product1);
      c2[i] = product0 >> 32 ^ c3[i] ^ key[1];
      c3[i] = static_cast<std::uint32_t>(product0);
    }
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  for (std::size_t i = 0; i < kBlocks; ++i) {
    words[4 * i] = static_cast<std::uint32_t>(c0[i]);
    words[4 * i + 1] = static_cast<std::uint32_t>(c1[i]);
    words[4 * i + 2] = static_cast<std::uint32_t>(c2[i]);
    words[4 * i + 3] = static_cast<std::uint32_t>(c3[i]);
  }
}

// From so many draws on, several threads are faster than one.
constexpr double kManyDraws = 300'000;

// What is summed over drawn cases, [block][case][lane].
class Columns {
 public:
  explicit Columns(std::size_t cases) : cases_(cases) {}

  // Returns the new column's number. `value` gives the entry of each case.
  template <typename Value>
  std::size_t Add(Value value) {
    const std::size_t column = count_++;
    if (column % kLanes == 0) rows_.resize(rows_.size() + cases_);
    for (std::size_t i = 0; i < cases_; ++i) {
      rows_[column / kLanes * cases_ + i][column % kLanes] = value(i);
    }
    return column;
  }

  std::size_t blocks() const { return (count_ + kLanes - 1) / kLanes; }

  // `drawn`: numbers of cases. `sums`: one of each column.
  void Sum(std::span<const std::uint32_t> drawn, std::span<Lanes> sums) const {
    for (std::size_t block = 0; block < sums.size(); ++block) {
      SumRows(rows_.data() + block * cases_, drawn.data(), drawn.size(), sums[block]);
    }
  }

 private:
  std::size_t cases_;
  std::size_t count_ = 0;
  std::vector<Lanes> rows_;
};

// As many cases as there are, with replacement. A case's chance is 1 / n within 2^-32.
void DrawCases(std::uint32_t replicate, const std::array<std::uint32_t, 2>& key,
               std::span<std::uint32_t> drawn) {
  const std::uint64_t cases = drawn.size();
  std::array<std::uint32_t, 4 * kBlocks> words;
  for (std::size_t i = 0; i < drawn.size(); i += words.size()) {
    PhiloxBlocks(static_cast<std::uint32_t>(i / 4), replicate, key, words);
    const std::size_t end = std::min(words.size(), drawn.size() - i);
    for (std::size_t word = 0; word < end; ++word) {
      drawn[i + word] = static_cast<std::uint32_t>(words[word] * cases >> 32);
    }
  }
}

// Where a series' sums are.
struct SumsOfSeries {
  std::size_t deviations = 0;
  std::size_t squares = 0;
  std::optional<std::size_t> defined;  ///< How many cases have a value; nullopt: all.
};

struct MeanAndT {
  double mean = 0;
  double t = 0;
};

// Of a replicate with `n` values, from sums of deviations from the sample's mean.
MeanAndT Studentised(const CaseSample& sample, double n, double deviations, double squares) {
  if (n == 0) return {.mean = std::nan(""), .t = std::nan("")};
  const double deviation = deviations / n;
  const double around_mean = squares - deviations * deviation;
  MeanAndT replicate{.mean = sample.mean + deviation, .t = 0};
  if (around_mean > 1e-12 * squares) {
    replicate.t = deviation / std::sqrt(around_mean / (n - 1) / n);
  } else if (deviation != 0) {  // Equal cases, but for rounding.
    replicate.t = std::copysign(std::numeric_limits<double>::infinity(), deviation);
  }
  return replicate;
}

double QuantileOf(std::span<const double> values, double fraction) {
  std::vector<double> copy(values.begin(), values.end());
  return QuantileInPlace(copy, fraction);
}

// The share of the replicates below the sample's mean, ties half: never 0 or 1.
double ShareBelow(std::span<const double> means, const CaseSample& sample) {
  // The same cases in another order have the same mean but for rounding.
  const double rounding = 1e-12 * sample.sd;
  double below = 0;
  for (const double mean : means) {
    if (std::fabs(mean - sample.mean) <= rounding) {
      below += 0.5;
    } else if (mean < sample.mean) {
      below += 1;
    }
  }
  const auto count = static_cast<double>(means.size());
  return std::clamp(below, 0.5, count - 0.5) / count;
}

}  // namespace

double QuantileInPlace(std::span<double> values, double fraction) {
  const double position = fraction * static_cast<double>(values.size() - 1);
  const auto rank = static_cast<std::ptrdiff_t>(position);
  const double share = position - std::floor(position);
  const auto place = values.begin() + rank;
  std::nth_element(values.begin(), place, values.end());
  const double below = *place;
  if (share == 0) return below;
  const double above = *std::min_element(place + 1, values.end());
  if (std::isinf(below)) return below;
  if (std::isinf(above)) return above;
  return below + share * (above - below);
}

CaseSample SampleOf(std::span<const double> values) {
  CaseSample sample;
  double lowest = std::numeric_limits<double>::infinity();
  double highest = -lowest;
  double sum = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    ++sample.n;
    sum += value;
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
  }
  if (sample.n == 0) return {.n = 0, .mean = std::nan("")};
  const auto n = static_cast<double>(sample.n);
  sample.mean = sum / n;
  if (lowest == highest) {
    sample.mean = lowest;
    return sample;
  }
  double squares = 0;
  double cubes = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    const double deviation = value - sample.mean;
    squares += deviation * deviation;
    cubes += deviation * deviation * deviation;
  }
  sample.sd = std::sqrt(squares / (n - 1));
  sample.skew = cubes / (squares * std::sqrt(squares));
  return sample;
}

BootstrapMeans BootstrapMeans::Draw(std::span<const std::vector<double>> series,
                                    std::string_view site, const BootstrapOptions& options) {
  BootstrapMeans bootstrap;
  if (series.empty()) return bootstrap;
  const std::size_t cases = series.front().size();
  assert(cases < std::numeric_limits<std::uint32_t>::max());
  Columns columns(cases);
  std::vector<SumsOfSeries> sums_of_series;
  std::vector<std::pair<std::vector<bool>, std::size_t>> masks;
  for (const std::vector<double>& values : series) {
    assert(values.size() == cases);
    Series added{.sample = SampleOf(values), .values = {}, .means = {}, .t = {}};
    std::vector<bool> has_value(cases);
    for (std::size_t i = 0; i < cases; ++i) {
      has_value[i] = !std::isnan(values[i]);
      if (has_value[i]) added.values.push_back(values[i]);
    }
    const double mean = added.sample.mean;
    const auto deviation = [&](std::size_t i) { return has_value[i] ? values[i] - mean : 0; };
    SumsOfSeries sums;
    if (added.sample.HasSpread()) {
      sums.deviations = columns.Add(deviation);
      sums.squares = columns.Add([&](std::size_t i) { return deviation(i) * deviation(i); });
      if (added.values.size() < cases) {
        const auto known = std::find_if(masks.begin(), masks.end(),
                                        [&](const auto& mask) { return mask.first == has_value; });
        if (known != masks.end()) {
          sums.defined = known->second;
        } else {
          sums.defined = columns.Add([&](std::size_t i) { return has_value[i] ? 1.0 : 0.0; });
          masks.emplace_back(has_value, *sums.defined);
        }
      }
      added.means.resize(static_cast<std::size_t>(options.replicates));
      added.t.resize(static_cast<std::size_t>(options.replicates));
    }
    sums_of_series.push_back(sums);
    bootstrap.series_.push_back(std::move(added));
  }
  if (columns.blocks() == 0) return bootstrap;

  RandomStream stream(options.seed, "bootstrap " + std::string(site));
  const std::uint32_t first_word = stream.NextBits();
  const std::array<std::uint32_t, 2> key = {first_word, stream.NextBits()};
  const bool many = static_cast<double>(cases) * options.replicates > kManyDraws;
  const int most = options.threads > 0 ? options.threads : omp_get_max_threads();
#pragma omp parallel num_threads(many ? most : 1)
  {
    std::vector<std::uint32_t> drawn(cases);
    std::vector<Lanes> sums(columns.blocks());
#pragma omp for schedule(static)
    for (int replicate = 0; replicate < options.replicates; ++replicate) {
      DrawCases(static_cast<std::uint32_t>(replicate), key, drawn);
      columns.Sum(drawn, sums);
      const auto sum = [&](std::size_t column) { return sums[column / kLanes][column % kLanes]; };
      for (std::size_t i = 0; i < sums_of_series.size(); ++i) {
        Series& filled = bootstrap.series_[i];
        if (!filled.sample.HasSpread()) continue;
        const SumsOfSeries& where = sums_of_series[i];
        const double n = where.defined ? sum(*where.defined) : static_cast<double>(cases);
        const MeanAndT result =
            Studentised(filled.sample, n, sum(where.deviations), sum(where.squares));
        filled.means[static_cast<std::size_t>(replicate)] = result.mean;
        filled.t[static_cast<std::size_t>(replicate)] = result.t;
      }
    }
  }
  for (Series& filled : bootstrap.series_) {
    std::erase_if(filled.means, [](double mean) { return std::isnan(mean); });
    std::erase_if(filled.t, [](double t) { return std::isnan(t); });
  }
  return bootstrap;
}

std::optional<Interval> BootstrapMeans::MeanInterval(std::size_t series, IntervalMethod method,
                                                     double level) const {
  const Series& of = series_[series];
  const CaseSample& sample = of.sample;
  if (!sample.HasSpread()) return std::nullopt;
  const double tail = (1 - level) / 2;
  const double error = sample.sd / std::sqrt(static_cast<double>(sample.n));
  Interval interval{.level = level, .method = method};
  if (method == IntervalMethod::kStudentT) {
    const double t = StudentTQuantile(1 - tail, static_cast<double>(sample.n - 1));
    interval.low = sample.mean - t * error;
    interval.high = sample.mean + t * error;
  } else if (method == IntervalMethod::kStudentised) {
    // A replicate that is too high stands for a sample that is: the quantiles change sides.
    interval.low = sample.mean - QuantileOf(of.t, 1 - tail) * error;
    interval.high = sample.mean - QuantileOf(of.t, tail) * error;
  } else {
    double low = tail;
    double high = 1 - tail;
    if (method == IntervalMethod::kBca) {
      const double bias = NormalQuantile(ShareBelow(of.means, sample));
      // Without case i the mean is lower by (value - mean) / (n - 1): the jackknife's skewness is
      // the sample's.
      const double acceleration = sample.skew / 6;
      const auto corrected = [&](double probability) {
        const double z = bias + NormalQuantile(probability);
        return NormalProbability(bias + z / (1 - acceleration * z));
      };
      low = corrected(tail);
      high = corrected(1 - tail);
    } else {
      assert(method == IntervalMethod::kPercentile);
    }
    interval.low = QuantileOf(of.means, low);
    interval.high = QuantileOf(of.means, high);
  }
  return interval;
}

IntervalMethod RecommendedMethod(std::int64_t cases) {
  return cases < 300 ? IntervalMethod::kStudentised : IntervalMethod::kBca;
}

}  // namespace isoscan
