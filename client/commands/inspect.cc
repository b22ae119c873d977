#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "client/commands/commands.h"
#include "client/commands/study_choice.h"
#include "client/study_cohort.h"
#include "common/process/progress.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// What one case holds, as the study would read it.
struct CaseSight {
  CaseFiles files;
  bool held_out = false;
  std::string refusal;  ///< Empty: it can be used.
  Geometry stored;
  std::vector<std::pair<float, float>> ranges;  ///< Least and greatest intensity per channel.
  std::vector<double> label_millilitres;        ///< Per label of the study.
};

void LookAt(const LoadedCase& loaded, const Study& study, CaseSight& sight) {
  sight.stored = loaded.stored;
  for (const Volume& channel : loaded.channels) {
    const auto [least, greatest] =
        std::minmax_element(channel.voxels.begin(), channel.voxels.end());
    sight.ranges.emplace_back(*least, *greatest);
  }
  std::vector<std::int64_t> voxels(static_cast<std::size_t>(study.classes()));
  for (const std::uint8_t label : loaded.labels.voxels) ++voxels[label];
  const auto& spacing = loaded.labels.geometry.spacing_mm;
  const double voxel_millilitres = spacing[0] * spacing[1] * spacing[2] / 1000;
  for (std::size_t label = 1; label < voxels.size(); ++label) {
    sight.label_millilitres.push_back(static_cast<double>(voxels[label]) * voxel_millilitres);
  }
}

CaseSight Look(const CaseFiles& files, bool held_out, const Study& study) {
  CaseSight sight{.files = files,
                  .held_out = held_out,
                  .refusal = "",
                  .stored = {},
                  .ranges = {},
                  .label_millilitres = {}};
  const absl::StatusOr<LoadedCase> loaded = LoadCase(files, study);
  if (!loaded.ok()) {
    sight.refusal = std::string(loaded.status().message());
    return sight;
  }
  LookAt(*loaded, study, sight);
  const absl::Status prepared = PrepareCase(*loaded, files, study).status();
  if (!prepared.ok()) sight.refusal = std::string(prepared.message());
  return sight;
}

void PrintTable(const std::vector<CaseSight>& sights, const Study& study) {
  std::size_t width = 4;
  for (const CaseSight& sight : sights) width = std::max(width, sight.files.name.size());
  fmt::print("{:>4}  {:<{}}  {:<8}  {:<13}  {:<17}  {:<21}  {}\n", "#", "case", width, "used for",
             "size x y z", "spacing mm", "intensity", "labels in mL");
  for (std::size_t index = 0; index < sights.size(); ++index) {
    const CaseSight& sight = sights[index];
    const std::string start =
        fmt::format("{:>4}  {:<{}}", index, Printable(sight.files.name), width);
    if (!sight.refusal.empty()) {
      fmt::print("{}  refused   {}\n", start, Printable(sight.refusal));
      continue;
    }
    const auto& size = sight.stored.size;
    const auto& spacing = sight.stored.spacing_mm;
    std::string ranges;
    for (const auto& [least, greatest] : sight.ranges) {
      ranges += fmt::format("{}{:.4g} to {:.4g}", ranges.empty() ? "" : ", ", least, greatest);
    }
    std::string labels;
    for (std::size_t label = 0; label < study.labels.size(); ++label) {
      labels += fmt::format("{}{} {:.2f}", labels.empty() ? "" : ", ", study.labels[label],
                            sight.label_millilitres[label]);
    }
    fmt::print(
        "{}  {:<8}  {:<13}  {:<17}  {:<21}  {}\n", start, sight.held_out ? "held-out" : "training",
        fmt::format("{} {} {}", size[0], size[1], size[2]),
        fmt::format("{:.2f} {:.2f} {:.2f}", spacing[0], spacing[1], spacing[2]), ranges, labels);
  }
}

void PrintJson(const std::vector<CaseSight>& sights, const std::vector<std::string>& left_out,
               const Study& study) {
  nlohmann::ordered_json cases = nlohmann::ordered_json::array();
  for (const CaseSight& sight : sights) {
    nlohmann::ordered_json entry{
        {"name", sight.files.name}, {"cohort", sight.files.cohort}, {"held_out", sight.held_out}};
    if (!sight.refusal.empty()) {
      entry["refused"] = sight.refusal;
    } else {
      entry["size"] = sight.stored.size;
      entry["spacing_mm"] = sight.stored.spacing_mm;
      for (std::size_t channel = 0; channel < sight.ranges.size(); ++channel) {
        entry["intensity"][study.channels[channel]] = {sight.ranges[channel].first,
                                                       sight.ranges[channel].second};
      }
      for (std::size_t label = 0; label < study.labels.size(); ++label) {
        entry["label_millilitres"][study.labels[label]] = sight.label_millilitres[label];
      }
    }
    cases.push_back(std::move(entry));
  }
  const nlohmann::ordered_json report{
      {"study", study.name}, {"cases", cases}, {"left_out", left_out}};
  fmt::print("{}\n", report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace

absl::Status Inspect(const ClientConfig& config, const std::string& study_choice, bool json,
                     std::stop_token stop) {
  ASSIGN_OR_RETURN(const Study study, ChooseStudy(config, study_choice));
  ASSIGN_OR_RETURN(const SiteCases cases, ListSiteCases(config, study));
  std::vector<CaseSight> sights;
  std::size_t refused = 0;
  std::size_t held_out = 0;
  {
    Progress progress("reading cases", static_cast<std::int64_t>(cases.files.size()));
    for (std::size_t index = 0; index < cases.files.size(); ++index) {
      if (stop.stop_requested()) return absl::CancelledError("interrupted");
      sights.push_back(Look(cases.files[index], cases.held_out[index], study));
      if (!sights.back().refusal.empty()) {
        ++refused;
      } else if (sights.back().held_out) {
        ++held_out;
      }
      progress.Advance(static_cast<std::int64_t>(index) + 1);
    }
  }
  const std::size_t training = sights.size() - held_out - refused;
  if (json) {
    PrintJson(sights, cases.left_out, study);
  } else {
    PrintTable(sights, study);
    for (const std::string& reason : cases.left_out) {
      fmt::print("left out  {}\n", Printable(reason));
    }
    fmt::print("{} cases: {} for training, {} held out, {} refused", sights.size(), training,
               held_out, refused);
    if (!cases.left_out.empty()) fmt::print("; {} scans left out", cases.left_out.size());
    fmt::print("\n");
    std::fflush(stdout);
  }
  if (training > 0 && held_out > 0) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("no {} case can be used: mend the refused ones, or add cases",
                  training == 0 ? "training" : "held-out"));
}

}  // namespace isoscan
