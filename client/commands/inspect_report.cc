#include "client/commands/inspect_report.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string_view>

#include "client/commands/table.h"
#include "client/imaging/acquisition.h"
#include "common/status/printable.h"

namespace isoscan {
namespace {

using nlohmann::ordered_json;

/// "quarantined", or what the case is good for.
std::string UseOf(const InspectReport& report, std::size_t index) {
  const CaseSight& sight = report.cases[index];
  if (sight.quarantined()) return "quarantined";
  if (!report.held_out.empty()) return report.held_out[index] ? "held-out" : "training";
  return sight.findings.empty() ? "usable" : "flagged";
}

/// What the image says it is, or else what its timing makes it.
std::string ContrastOf(const CaseSight& sight) {
  std::string channels;
  for (const ImageSight& image : sight.images) {
    if (image.file.channel.empty()) continue;
    channels += (channels.empty() ? "" : ", ") + image.file.channel;
  }
  if (!channels.empty()) return channels;
  const Contrast guess = GuessContrast(sight.files.sidecar.acquisition);
  return guess == Contrast::kUnknown ? "-" : std::string(ContrastName(guess)) + "?";
}

std::string ScannerOf(const Acquisition& acquisition) {
  std::string text = acquisition.manufacturer;
  if (!acquisition.model.empty()) text += (text.empty() ? "" : " ") + acquisition.model;
  if (acquisition.field_tesla.has_value()) {
    text += fmt::format("{}{:.3g} T", text.empty() ? "" : " ", *acquisition.field_tesla);
  }
  return text.empty() ? "-" : text;
}

std::string AxesOf(const ImageSight& image) {
  if (image.oblique_degrees < 0.05) return image.orientation;
  return fmt::format("{} {:.1f} deg", image.orientation, image.oblique_degrees);
}

std::string IntensityOf(const CaseSight& sight) {
  std::string text;
  for (const ImageSight& image : sight.images) {
    if (!image.read) continue;
    text +=
        fmt::format("{}{:.4g} to {:.4g}", text.empty() ? "" : ", ", image.minimum, image.maximum);
  }
  return text.empty() ? "-" : text;
}

std::string LabelsOf(const CaseSight& sight) {
  std::string text;
  constexpr std::size_t kShown = 6;
  for (std::size_t i = 0; i < std::min(kShown, sight.labels.size()); ++i) {
    const LabelSight& label = sight.labels[i];
    text += fmt::format("{}{} {} ({:.2f} mL)", i == 0 ? "" : ", ", label.name, label.voxels,
                        label.millilitres);
  }
  if (sight.labels.size() > kShown) {
    text += fmt::format(", {} more", sight.labels.size() - kShown);
  }
  return text.empty() ? "-" : text;
}

void PrintFindings(const InspectReport& report, bool quarantines, std::string_view title) {
  bool first = true;
  for (const CaseSight& sight : report.cases) {
    if (sight.quarantined() != quarantines) continue;
    for (const Finding& finding : sight.findings) {
      if (first) fmt::print("\n{}\n", title);
      first = false;
      fmt::print("  {}  {}  {}: {}\n", Printable(sight.files.name), NameOf(finding),
                 Printable(finding.path.string()), Printable(finding.reason));
    }
  }
}

struct Counts {
  std::size_t usable = 0;
  std::size_t flagged = 0;
  std::size_t quarantined = 0;
  std::map<std::string, std::size_t> cases_by_fault;
};

Counts CountsOf(const InspectReport& report) {
  Counts counts;
  for (const CaseSight& sight : report.cases) {
    const bool quarantined = sight.quarantined();
    counts.quarantined += quarantined ? 1 : 0;
    counts.usable += quarantined ? 0 : 1;
    counts.flagged += !quarantined && !sight.findings.empty() ? 1 : 0;
    std::set<std::string> faults;
    for (const Finding& finding : sight.findings) faults.insert(NameOf(finding));
    for (const std::string& fault : faults) ++counts.cases_by_fault[fault];
  }
  return counts;
}

std::string_view NameOf(Extent extent) {
  switch (extent) {
    case Extent::kCrop:
      return "crop";
    case Extent::kInAir:
      return "in_air";
    case Extent::kSkullStripped:
      return "skull_stripped";
  }
  return "unknown";
}

template <typename T>
void SetIf(ordered_json& object, const char* key, const std::optional<T>& value) {
  if (value.has_value()) object[key] = *value;
}

ordered_json JsonOf(const Acquisition& acquisition) {
  ordered_json json = ordered_json::object();
  if (!acquisition.modality.empty()) json["modality"] = acquisition.modality;
  if (!acquisition.manufacturer.empty()) json["manufacturer"] = acquisition.manufacturer;
  if (!acquisition.model.empty()) json["model"] = acquisition.model;
  if (!acquisition.software.empty()) json["software"] = acquisition.software;
  if (!acquisition.receive_coil.empty()) json["receive_coil"] = acquisition.receive_coil;
  SetIf(json, "field_tesla", acquisition.field_tesla);
  SetIf(json, "repetition_ms", acquisition.repetition_ms);
  SetIf(json, "echo_ms", acquisition.echo_ms);
  SetIf(json, "inversion_ms", acquisition.inversion_ms);
  SetIf(json, "flip_degrees", acquisition.flip_degrees);
  return json;
}

ordered_json JsonOf(const ImageSight& image) {
  ordered_json json{{"path", image.file.path.string()}, {"channel", image.file.channel}};
  if (image.stored.voxels() == 0) return json;
  json["size"] = image.stored.size;
  json["spacing_mm"] = image.stored.spacing_mm;
  json["orientation"] = image.orientation;
  json["oblique_degrees"] = image.oblique_degrees;
  if (!image.read) return json;
  json["intensity"] = {image.minimum, image.maximum};
  json["mean"] = image.mean;
  json["standard_deviation"] = image.standard_deviation;
  json["extent"] = NameOf(image.extent);
  json["background_share"] = image.background_share;
  return json;
}

ordered_json JsonOf(const CaseSight& sight, const Finding& finding) {
  return {{"case", sight.files.name},
          {"path", finding.path.string()},
          {"fault", NameOf(finding)},
          {"reason", finding.reason}};
}

ordered_json JsonOf(const InspectReport& report, std::size_t index) {
  const CaseSight& sight = report.cases[index];
  ordered_json json{{"name", sight.files.name},
                    {"cohort", sight.files.cohort},
                    {"use", UseOf(report, index)},
                    {"contrast", ContrastOf(sight)},
                    {"scanner", JsonOf(sight.files.sidecar.acquisition)},
                    {"images", ordered_json::array()},
                    {"labels", ordered_json::array()},
                    {"findings", ordered_json::array()}};
  if (!sight.notes.empty()) json["notes"] = sight.notes;
  if (!report.held_out.empty()) json["held_out"] = static_cast<bool>(report.held_out[index]);
  for (const ImageSight& image : sight.images) json["images"].push_back(JsonOf(image));
  for (const LabelSight& label : sight.labels) {
    ordered_json entry{
        {"name", label.name}, {"voxels", label.voxels}, {"millilitres", label.millilitres}};
    if (label.voxels > 0) entry["centre_mm"] = label.centre_mm;
    SetIf(entry, "contrast", label.contrast);
    json["labels"].push_back(std::move(entry));
  }
  for (const auto& [name, share] :
       {std::pair("otsu", &sight.otsu), std::pair("threshold", &sight.threshold)}) {
    if (!share->has_value()) continue;
    json["masks"][name] = {{"labelled", (*share)->labelled}, {"all", (*share)->all}};
  }
  for (const Finding& finding : sight.findings) {
    json["findings"].push_back({{"fault", NameOf(finding)},
                                {"quarantines", finding.quarantines},
                                {"path", finding.path.string()},
                                {"reason", finding.reason}});
  }
  return json;
}

ordered_json JsonOf(const InspectReport::Cohort& cohort) {
  ordered_json json{{"name", cohort.name}, {"folder", cohort.folder}, {"layout", cohort.layout}};
  const MaskAdvice& advice = cohort.advice;
  if (advice.mask.empty()) return json;
  json["mask"] = {{"advice", advice.mask},
                  {"reason", advice.reason},
                  {"crops", advice.crops},
                  {"in_air", advice.in_air},
                  {"skull_stripped", advice.skull_stripped}};
  if (advice.labelled == 0) return json;
  for (const auto& [name, held] :
       {std::pair("otsu", &advice.otsu), std::pair("threshold", &advice.threshold)}) {
    json["mask"][name] = {{"median_labelled", held->median},
                          {"least_labelled", held->least},
                          {"cases_below_half", held->below_half}};
  }
  return json;
}

}  // namespace

void PrintInspectTable(const InspectReport& report) {
  std::vector<std::vector<std::string>> rows{{"#", "case", "use", "size x y z", "spacing mm",
                                              "axes", "contrast", "scanner", "intensity",
                                              "labels in voxels"}};
  for (std::size_t index = 0; index < report.cases.size(); ++index) {
    const CaseSight& sight = report.cases[index];
    std::vector<std::string>& row = rows.emplace_back();
    row = {std::to_string(index), Printable(sight.files.name), UseOf(report, index)};
    if (sight.images.empty() || sight.images.front().stored.voxels() == 0) {
      row.insert(row.end(), 3, "-");
    } else {
      const Geometry& stored = sight.images.front().stored;
      row.push_back(fmt::format("{}", fmt::join(stored.size, " ")));
      row.push_back(fmt::format("{:.3g}", fmt::join(stored.spacing_mm, " ")));
      row.push_back(AxesOf(sight.images.front()));
    }
    row.push_back(Printable(ContrastOf(sight)));
    row.push_back(Printable(ScannerOf(sight.files.sidecar.acquisition)));
    row.push_back(IntensityOf(sight));
    row.push_back(Printable(LabelsOf(sight)));
  }
  PrintRows(rows);
  PrintFindings(report, /*quarantines=*/true, "quarantined: these cannot be used");
  PrintFindings(report, /*quarantines=*/false, "flagged: these can be used, look at them");
  if (!report.left_out.empty()) fmt::print("\nleft out: these are no cases\n");
  for (const std::string& line : report.left_out) fmt::print("  {}\n", Printable(line));
  fmt::print("\n");
  for (const InspectReport::Cohort& cohort : report.cohorts) {
    fmt::print("{}{}{}: {}\n", Printable(cohort.name), cohort.name.empty() ? "" : ": ",
               Printable(cohort.folder), cohort.layout);
    if (!cohort.advice.mask.empty()) {
      fmt::print("mask = \"{}\" suits it: {}\n", cohort.advice.mask, cohort.advice.reason);
    }
  }
  const Counts counts = CountsOf(report);
  fmt::print("{} cases: {} usable", report.cases.size(), counts.usable);
  if (!report.held_out.empty()) {
    std::size_t held_out = 0;
    for (std::size_t i = 0; i < report.cases.size(); ++i) {
      held_out += report.held_out[i] && !report.cases[i].quarantined() ? 1 : 0;
    }
    fmt::print(" ({} for training, {} held out)", counts.usable - held_out, held_out);
  }
  fmt::print(", {} of them flagged, {} quarantined", counts.flagged, counts.quarantined);
  if (!report.left_out.empty()) fmt::print(", {} left out", report.left_out.size());
  std::string faults;
  for (const auto& [fault, cases] : counts.cases_by_fault) {
    faults += fmt::format("{}{} {}", faults.empty() ? "; " : ", ", fault, cases);
  }
  fmt::print("{}\n{:.1f} s, {:.0f} MB at most{}\n", faults, report.seconds,
             static_cast<double>(report.peak_bytes) / 1e6,
             report.headers_only ? "; headers only, no voxel was read" : "");
  std::fflush(stdout);
}

void PrintInspectJson(const InspectReport& report) {
  ordered_json cases = ordered_json::array();
  ordered_json quarantined = ordered_json::array();
  ordered_json flagged = ordered_json::array();
  for (std::size_t index = 0; index < report.cases.size(); ++index) {
    const CaseSight& sight = report.cases[index];
    cases.push_back(JsonOf(report, index));
    for (const Finding& finding : sight.findings) {
      if (finding.quarantines) {
        quarantined.push_back(JsonOf(sight, finding));
      } else if (!sight.quarantined()) {
        flagged.push_back(JsonOf(sight, finding));
      }
    }
  }
  ordered_json cohorts = ordered_json::array();
  for (const InspectReport::Cohort& cohort : report.cohorts) cohorts.push_back(JsonOf(cohort));
  const Counts counts = CountsOf(report);
  ordered_json summary{{"cases", report.cases.size()},     {"usable", counts.usable},
                       {"flagged", counts.flagged},        {"quarantined", counts.quarantined},
                       {"faults", ordered_json::object()}, {"headers_only", report.headers_only},
                       {"threads", report.threads},        {"budget_bytes", report.budget_bytes},
                       {"seconds", report.seconds},        {"peak_bytes", report.peak_bytes}};
  for (const auto& [fault, number] : counts.cases_by_fault) {
    summary["faults"][fault] = number;
  }
  const ordered_json json{
      {"study", report.study.empty() ? ordered_json() : ordered_json(report.study)},
      {"summary", summary},
      {"cohorts", cohorts},
      {"cases", cases},
      {"quarantined", quarantined},
      {"flagged", flagged},
      {"left_out", report.left_out}};
  fmt::print("{}\n", json.dump(2, ' ', false, ordered_json::error_handler_t::replace));
}

}  // namespace isoscan
