#pragma once

#include <string_view>

namespace isoscan {

/// How an interval came about: a report says so beside it.
enum class IntervalMethod {
  kStudentT,         ///< Mean -+ Student's t: right for normal values.
  kPercentile,       ///< Bootstrap: quantiles of the replicates.
  kBca,              ///< Bootstrap: bias-corrected and accelerated.
  kStudentised,      ///< Bootstrap: quantiles of the replicates' t.
  kSignFlips,        ///< Exact for differences whose distribution is symmetric.
  kOrderStatistics,  ///< Of a median; exact.
  kClopperPearson,   ///< Of a proportion; exact.
  kWilson,           ///< Of a proportion; near the level on average.
  kTestInversion,    ///< Of a spread over sites: what the observed spread does not contradict.
};

/// In a report's words: "studentised bootstrap".
std::string_view WordsFor(IntervalMethod method);

struct Interval {
  double low = 0;
  double high = 0;
  double level = 0;  ///< What was asked for, 0.95; what it comes to is in docs/fairness.md.
  IntervalMethod method = IntervalMethod::kStudentT;

  bool Holds(double value) const { return low <= value && value <= high; }
  /// Without what lies outside the range of possible values.
  Interval Within(double lowest, double highest) const;
};

}  // namespace isoscan
