#include "server/admin/presentation.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <vector>

namespace isoscan {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

/// Left-aligned columns, two spaces apart; the first row is the heading.
std::string Table(const std::vector<Row>& rows, const char* when_empty) {
  if (rows.size() < 2) return fmt::format("{}\n", when_empty);
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += fmt::format("{:<{}}", row[i], widths[i] + 2);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string Dump(const Json& json) {
  // What a site wrote may not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Date(std::int64_t seconds) {
  if (seconds == 0) return "-";
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

bool IsScoring(const v1::StudyState& study) {
  return study.final_scores() && study.phase() != v1::STUDY_PHASE_FINISHED;
}

std::string RoundOf(const v1::StudyState& study) {
  if (IsScoring(study)) return "final scores";
  return fmt::format("{}/{}", study.round() - (study.final_scores() ? 1 : 0), study.rounds());
}

/// "running, round 2/10", "running, final scores".
std::string RoundWords(const v1::StudyState& study) {
  return fmt::format("{}, {}{}", WordOf(study.phase()), IsScoring(study) ? "" : "round ",
                     RoundOf(study));
}

std::string ActivityOf(const v1::SiteState& site) {
  if (site.withdrawn()) return "withdrawn";
  if (!site.approved()) return "has not approved yet";
  std::string text = site.activity().empty() ? "waiting" : site.activity();
  if (site.steps() > 0 && site.activity() != "done")
    text += fmt::format(" {}/{}", site.step(), site.steps());
  if (!site.connected() && site.activity().find("silent") == std::string::npos) {
    text += " (not connected)";
  }
  return text;
}

Json ToJson(const v1::StudyState& study) {
  Json sites = Json::array();
  for (const v1::SiteState& site : study.sites()) {
    sites.push_back({{"site", site.site()},
                     {"approved", site.approved()},
                     {"withdrawn", site.withdrawn()},
                     {"connected", site.connected()},
                     {"training_cases", site.training_cases()},
                     {"held_out_cases", site.held_out_cases()},
                     {"activity", site.activity()},
                     {"step", site.step()},
                     {"steps", site.steps()}});
  }
  return {{"study", study.name()},
          {"digest", study.digest()},
          {"phase", WordOf(study.phase())},
          {"round", study.round()},
          {"rounds", study.rounds()},
          {"waiting_for", study.waiting_for()},
          {"final_scores", study.final_scores()},
          {"early_end", study.early_end()},
          {"sites", sites}};
}

}  // namespace

std::string WordOf(v1::StudyPhase phase) {
  switch (phase) {
    case v1::STUDY_PHASE_CREATED:
      return "created";
    case v1::STUDY_PHASE_RUNNING:
      return "running";
    case v1::STUDY_PHASE_PAUSED:
      return "paused";
    case v1::STUDY_PHASE_FINISHED:
      return "finished";
    case v1::STUDY_PHASE_STOPPED:
      return "stopped";
    default:
      return "unknown";
  }
}

std::string Present(const v1::ListSitesResponse& sites, Format format) {
  Json json = Json::array();
  std::vector<Row> rows = {{"SITE", "STATE", "CONNECTED", "CERTIFICATE ENDS"}};
  for (const v1::EnrolledSite& site : sites.sites()) {
    json.push_back({{"site", site.site()},
                    {"state", site.state()},
                    {"connected", site.connected()},
                    {"certificate_ends", Date(site.certificate_ends())}});
    rows.push_back({site.site(), site.state(), site.connected() ? "yes" : "no",
                    Date(site.certificate_ends())});
  }
  if (format == Format::kJson) return Dump({{"sites", json}});
  return Table(rows, "no site yet; isoscan-admin site invite NAME --out FILE invites one");
}

std::string Present(const v1::ListOperatorStudiesResponse& studies, Format format) {
  Json json = Json::array();
  std::vector<Row> rows = {{"STUDY", "PHASE", "ROUND", "SITES", "WAITING FOR"}};
  for (const v1::StudyState& study : studies.studies()) {
    json.push_back(ToJson(study));
    const auto approved = std::count_if(
        study.sites().begin(), study.sites().end(),
        [](const v1::SiteState& site) { return site.approved() && !site.withdrawn(); });
    rows.push_back({study.name(), WordOf(study.phase()), RoundOf(study),
                    fmt::format("{} of {}", approved, study.sites_size()), study.waiting_for()});
  }
  if (format == Format::kJson) return Dump({{"studies", json}});
  return Table(rows, "no study yet; isoscan-admin study create FILE makes one");
}

std::string Present(const v1::ListModelsResponse& models, Format format) {
  Json json = Json::array();
  std::vector<Row> rows = {{"ROUND", "BYTES", "SHA-256"}};
  for (const v1::GlobalModel& model : models.models()) {
    json.push_back(
        {{"round", model.round()}, {"bytes", model.bytes()}, {"digest", model.digest()}});
    rows.push_back(
        {fmt::format("{}", model.round()), fmt::format("{}", model.bytes()), model.digest()});
  }
  if (format == Format::kJson) return Dump({{"models", json}});
  return Table(rows, "no model yet");
}

std::string Present(const v1::BestModelResponse& best, Format format) {
  if (format == Format::kJson) {
    return Dump({{"round", best.model().round()},
                 {"bytes", best.model().bytes()},
                 {"digest", best.model().digest()},
                 {"by", best.by()},
                 {"score", best.score()},
                 {"judges", std::vector<std::string>(best.judges().begin(), best.judges().end())},
                 {"models", best.models()}});
  }
  return fmt::format(
      "best by {}: round {}, Dice {:.4f}\nof {} model{} that each of {} scored\n"
      "SHA-256 {}\n",
      best.by(), best.model().round(), best.score(), best.models(), best.models() == 1 ? "" : "s",
      fmt::join(best.judges(), ", "), best.model().digest());
}

std::string Present(const v1::StudyState& study, Format format) {
  if (format == Format::kJson) return Dump(ToJson(study));
  std::string text = fmt::format("study {}: {}\n", study.name(), RoundWords(study));
  if (!study.waiting_for().empty()) text += fmt::format("waiting for {}\n", study.waiting_for());
  if (!study.early_end().empty()) text += fmt::format("ended early: {}\n", study.early_end());
  std::vector<Row> rows = {{"SITE", "TRAINING CASES", "HELD-OUT CASES", "ACTIVITY"}};
  for (const v1::SiteState& site : study.sites()) {
    rows.push_back({site.site(), fmt::format("{}", site.training_cases()),
                    fmt::format("{}", site.held_out_cases()), ActivityOf(site)});
  }
  return text + Table(rows, "no site has approved it yet");
}

std::string ProgressLine(const v1::StudyState& study) {
  std::string line = RoundWords(study);
  for (const v1::SiteState& site : study.sites()) {
    line += fmt::format(" | {}: {}", site.site(), ActivityOf(site));
  }
  if (!study.waiting_for().empty()) line += fmt::format(" | waiting for {}", study.waiting_for());
  return line;
}

bool DiffersBeyondSteps(const v1::StudyState& left, const v1::StudyState& right) {
  const auto without_steps = [](v1::StudyState study) {
    for (v1::SiteState& site : *study.mutable_sites()) site.clear_step();
    return study.SerializeAsString();
  };
  return without_steps(left) != without_steps(right);
}

}  // namespace isoscan
