#include "common/statistics/interval.h"

#include <algorithm>

namespace isoscan {

std::string_view WordsFor(IntervalMethod method) {
  switch (method) {
    case IntervalMethod::kStudentT:
      return "Student's t";
    case IntervalMethod::kPercentile:
      return "percentile bootstrap";
    case IntervalMethod::kBca:
      return "BCa bootstrap";
    case IntervalMethod::kStudentised:
      return "studentised bootstrap";
    case IntervalMethod::kSignFlips:
      return "sign flips";
    case IntervalMethod::kOrderStatistics:
      return "order statistics";
    case IntervalMethod::kClopperPearson:
      return "Clopper-Pearson";
    case IntervalMethod::kWilson:
      return "Wilson";
    case IntervalMethod::kTestInversion:
      return "bootstrap test inversion";
  }
  return "";
}

Interval Interval::Within(double lowest, double highest) const {
  Interval within = *this;
  within.low = std::clamp(low, lowest, highest);
  within.high = std::clamp(high, lowest, highest);
  return within;
}

}  // namespace isoscan
