#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <optional>

#include "client/cohort/harmonized_copy.h"
#include "client/commands/commands.h"
#include "common/process/progress.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::Status HarmonizeImages(const HarmonizeRequest& request, std::stop_token stop) {
  HarmonizationPlan plan = request.plan;
  if (!request.study.empty()) {
    ASSIGN_OR_RETURN(const Study study, LoadStudy(request.study));
    plan = study.harmonization;
  }
  std::optional<Progress> bar;
  ASSIGN_OR_RETURN(const HarmonizedCopy copy,
                   MakeHarmonizedCopy(request.input, request.output, plan, stop,
                                      [&](std::int64_t done, std::int64_t total) {
                                        if (!bar.has_value()) bar.emplace("harmonising", total);
                                        bar->Advance(done);
                                      }));
  bar.reset();
  if (request.json) {
    nlohmann::json refused = nlohmann::json::array();
    for (const HarmonizedCopy::Refused& image : copy.refused) {
      refused.push_back({{"path", image.image.string()}, {"reason", image.reason}});
    }
    const nlohmann::json result{{"harmonization_sha256", HarmonizationDigest(plan)},
                                {"written", copy.written},
                                {"kept", copy.kept},
                                {"refused", std::move(refused)}};
    fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    for (const HarmonizedCopy::Refused& image : copy.refused) {
      fmt::print("refused {}: {}\n", Printable(image.image.string()), Printable(image.reason));
    }
    fmt::print("{}\n{} written, {} kept, {} refused\n", InWords(plan), copy.written, copy.kept,
               copy.refused.size());
  }
  if (copy.refused.empty()) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} of {} images were refused and are not in the output; the others are done",
                  copy.refused.size(),
                  static_cast<std::size_t>(copy.written + copy.kept) + copy.refused.size()));
}

}  // namespace isoscan
