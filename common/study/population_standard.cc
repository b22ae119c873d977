#include "common/study/population_standard.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>

namespace isoscan {

std::string StandardFault(const std::vector<double>& standard,
                          HarmonizationPlan::Normalizer normalizer, std::size_t channels) {
  const std::size_t length = StandardLength(normalizer);
  if (standard.size() != length * channels) {
    return fmt::format("has {} numbers, expected {}", standard.size(), length * channels);
  }
  for (std::size_t i = 0; i < standard.size(); ++i) {
    if (!(std::abs(standard[i]) <= kLargestStandard)) {
      return fmt::format("has the number {}, allowed are -{} to {}", standard[i], kLargestStandard,
                         kLargestStandard);
    }
    // Cases whose intensities are few have landmarks that coincide.
    if (i % length > 0 && standard[i] < standard[i - 1]) {
      return fmt::format("descends from {} to {}", standard[i - 1], standard[i]);
    }
  }
  return "";
}

void TakeStandard(const std::map<std::string, std::string>& metadata, std::size_t channels,
                  HarmonizationPlan& plan) {
  if (StandardLength(plan.normalize) == 0 || !plan.standard.empty()) return;
  const auto text = metadata.find("harmonization");
  if (text == metadata.end()) return;
  constexpr std::string_view kKey = "\"standard\":[";
  const std::size_t place = text->second.find(kKey);
  if (place == std::string::npos) return;
  std::vector<double> standard;
  const char* const end = text->second.data() + text->second.size();
  for (const char* next = text->second.data() + place + kKey.size(); next < end; ++next) {
    double number = 0;
    const auto [past, error] = std::from_chars(next, end, number);
    if (error != std::errc()) return;
    standard.push_back(number);
    next = past;
    if (next == end || *next != ',') break;
  }
  if (StandardFault(standard, plan.normalize, channels).empty()) plan.standard = standard;
}

}  // namespace isoscan
