#include "common/study/harmonization_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "common/status/printable.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

using Plan = HarmonizationPlan;

constexpr char kTextKey[] = "harmonization";
constexpr char kDigestKey[] = "harmonization_sha256";

/// One step. Values are JSON already; std::map sorts the keys.
using Step = std::map<std::string, std::string>;

std::string Quoted(std::string_view word) { return fmt::format("\"{}\"", word); }

std::string JsonOf(const Step& step) {
  std::vector<std::string> entries;
  for (const auto& [key, value] : step) entries.push_back(fmt::format("\"{}\":{}", key, value));
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

Step N4Step(const N4Plan& plan) {
  return {{"step", "\"n4\""},
          {"control_points", fmt::format("{}", plan.control_points)},
          {"convergence", fmt::format("{}", plan.convergence)},
          {"iterations", fmt::format("{}", plan.iterations)},
          {"levels", fmt::format("{}", plan.levels)},
          {"shrink", fmt::format("{}", plan.shrink)}};
}

Step MaskStep(const Plan& plan) {
  Step step{{"step", "\"mask\""},
            {"kind", Quoted(ToString(plan.mask))},
            {"outside", Quoted(ToString(plan.outside))}};
  if (plan.mask == Plan::Mask::kThreshold) step["threshold"] = fmt::format("{}", plan.threshold);
  return step;
}

Step NormalizeStep(const Plan& plan) {
  Step step{{"step", "\"normalize\""}, {"method", Quoted(ToString(plan.normalize))}};
  if (NeedsContrast(plan.normalize)) {
    std::vector<std::string> contrasts;
    for (const Plan::Contrast contrast : plan.contrasts) {
      contrasts.push_back(Quoted(ToString(contrast)));
    }
    step["contrasts"] = fmt::format("[{}]", fmt::join(contrasts, ","));
  }
  if (plan.normalize == Plan::Normalizer::kFcm) step["tissue"] = Quoted(ToString(plan.tissue));
  if (plan.normalize == Plan::Normalizer::kKde) {
    step["bandwidth"] = Quoted(ToString(plan.bandwidth));
  }
  if (StandardLength(plan.normalize) > 0) {
    step["standard"] = plan.standard.empty() ? "\"population\""
                                             : fmt::format("[{}]", fmt::join(plan.standard, ","));
  }
  return step;
}

Step ResampleStep(const Plan& plan) {
  Step step{{"step", "\"resample\""},
            {"spacing_mm", fmt::format("[{},{},{}]", plan.spacing_mm[0], plan.spacing_mm[1],
                                       plan.spacing_mm[2])}};
  if (plan.spacing_mm != std::array<double, 3>{0, 0, 0}) {
    step["interpolation"] = Quoted(ToString(plan.interpolation));
  }
  return step;
}

std::string MaskWords(const Plan& plan) {
  switch (plan.mask) {
    case Plan::Mask::kWhole:
      return "the whole volume";
    case Plan::Mask::kOtsu:
      return "Otsu's foreground";
    case Plan::Mask::kThreshold:
      return fmt::format("voxels above {} of the range", plan.threshold);
    case Plan::Mask::kGiven:
      return "the mask that comes with each case";
  }
  return "";
}

std::string NormalizerWords(const Plan& plan) {
  switch (plan.normalize) {
    case Plan::Normalizer::kInstance:
      return fmt::format("instance normalisation over {}", MaskWords(plan));
    case Plan::Normalizer::kZScore:
      return "z-score over the whole volume";
    case Plan::Normalizer::kNyul:
      return fmt::format("Nyul's standard scale over {}", MaskWords(plan));
    case Plan::Normalizer::kWhiteStripe:
      return fmt::format("white stripe over {}", MaskWords(plan));
    case Plan::Normalizer::kKde:
      return fmt::format("a tissue's mode over {}", MaskWords(plan));
    case Plan::Normalizer::kFcm:
      return fmt::format("a tissue's mean by fuzzy c-means over {}", MaskWords(plan));
    case Plan::Normalizer::kLsq:
      return fmt::format("least squares on tissue means over {}", MaskWords(plan));
    case Plan::Normalizer::kNone:
      return "no normalisation";
  }
  return "";
}

}  // namespace

std::string_view ToString(Plan::Mask mask) {
  switch (mask) {
    case Plan::Mask::kWhole:
      return "whole";
    case Plan::Mask::kOtsu:
      return "otsu";
    case Plan::Mask::kThreshold:
      return "threshold";
    case Plan::Mask::kGiven:
      return "given";
  }
  return "";
}

std::string_view ToString(Plan::Outside outside) {
  return outside == Plan::Outside::kKeep ? "keep" : "zero";
}

std::string_view ToString(Plan::Normalizer normalizer) {
  switch (normalizer) {
    case Plan::Normalizer::kInstance:
      return "instance";
    case Plan::Normalizer::kZScore:
      return "zscore";
    case Plan::Normalizer::kNyul:
      return "nyul";
    case Plan::Normalizer::kWhiteStripe:
      return "white_stripe";
    case Plan::Normalizer::kKde:
      return "kde";
    case Plan::Normalizer::kFcm:
      return "fcm";
    case Plan::Normalizer::kLsq:
      return "lsq";
    case Plan::Normalizer::kNone:
      return "none";
  }
  return "";
}

std::string_view ToString(Plan::Contrast contrast) {
  switch (contrast) {
    case Plan::Contrast::kT1w:
      return "T1w";
    case Plan::Contrast::kT2w:
      return "T2w";
    case Plan::Contrast::kFlair:
      return "FLAIR";
    case Plan::Contrast::kPdw:
      return "PDw";
  }
  return "";
}

std::string_view ToString(Plan::Tissue tissue) {
  switch (tissue) {
    case Plan::Tissue::kCsf:
      return "csf";
    case Plan::Tissue::kGreyMatter:
      return "grey_matter";
    case Plan::Tissue::kWhiteMatter:
      return "white_matter";
  }
  return "";
}

std::string_view ToString(Plan::Bandwidth bandwidth) {
  return bandwidth == Plan::Bandwidth::kPackage ? "package" : "scott";
}

std::string_view ToString(Plan::Interpolation interpolation) {
  return interpolation == Plan::Interpolation::kLinear ? "linear" : "bspline";
}

std::string InWords(const Plan& plan) {
  return fmt::format("{}{}", plan.n4.has_value() ? "N4, then " : "", NormalizerWords(plan));
}

std::optional<Plan::Contrast> ContrastOf(std::string_view channel) {
  std::string name(channel);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  for (const Plan::Contrast contrast :
       {Plan::Contrast::kT1w, Plan::Contrast::kT2w, Plan::Contrast::kFlair, Plan::Contrast::kPdw}) {
    std::string word(ToString(contrast));
    std::transform(word.begin(), word.end(), word.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    // "T1" for "T1w", as many cohorts write.
    if (name == word || (word.back() == 'w' && name == word.substr(0, word.size() - 1))) {
      return contrast;
    }
  }
  return std::nullopt;
}

std::string CanonicalText(const Plan& plan) {
  std::vector<std::string> steps{JsonOf({{"step", "\"geometry\""}, {"orientation", "\"LPS\""}})};
  if (plan.n4.has_value()) steps.push_back(JsonOf(N4Step(*plan.n4)));
  steps.push_back(JsonOf(MaskStep(plan)));
  steps.push_back(JsonOf(NormalizeStep(plan)));
  steps.push_back(JsonOf(ResampleStep(plan)));
  return fmt::format("[{}]", fmt::join(steps, ","));
}

std::string HarmonizationDigest(const Plan& plan) { return Sha256Of(CanonicalText(plan)); }

std::map<std::string, std::string> HarmonizationMetadata(const Plan& plan) {
  const std::string text = CanonicalText(plan);
  return {{kTextKey, text}, {kDigestKey, Sha256Of(text)}};
}

absl::Status CheckHarmonization(const std::string& whose,
                                const std::map<std::string, std::string>& metadata,
                                const Plan& plan) {
  const std::map<std::string, std::string> expected = HarmonizationMetadata(plan);
  const auto text = metadata.find(kTextKey);
  const auto digest = metadata.find(kDigestKey);
  if (text == metadata.end() || digest == metadata.end()) {
    return absl::InvalidArgumentError(
        fmt::format("{} does not say which harmonisation it is for; the study's has digest {}",
                    whose, expected.at(kDigestKey)));
  }
  if (digest->second != expected.at(kDigestKey)) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is for another harmonisation: its digest is {}, the study's is {}; both sides must run "
        "a version that harmonises alike, on the same study",
        whose, Printable(digest->second.substr(0, 64)), expected.at(kDigestKey)));
  }
  if (text->second != expected.at(kTextKey)) {
    return absl::InvalidArgumentError(
        fmt::format("{} has harmonisation digest {}, but the steps beside it are others ({})",
                    whose, digest->second, Sha256Of(text->second)));
  }
  return absl::OkStatus();
}

}  // namespace isoscan
