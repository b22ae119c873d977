#include "server/fairness/page.h"

#include <fmt/format.h>

#include "common/markup/escape.h"
#include "server/fairness/html.h"

namespace isoscan {
namespace {

std::string StateOf(const StudyRecord& record) {
  if (record.finished) return fmt::format("finished {}", FormatTime(record.ended));
  if (record.ended != Time{}) return fmt::format("stopped {}", FormatTime(record.ended));
  return record.rounds.empty() ? "not started" : "not finished: these numbers will change";
}

std::string Masthead(const ReportContent& content) {
  const Study& study = content.record.study;
  const std::string description =
      study.description.empty()
          ? ""
          : fmt::format("<p class=\"lede\">{}</p>\n", EscapeMarkup(study.description));
  return fmt::format(
      "<header>\n<p class=\"kicker\">Isoscan fairness report</p>\n<h1>{}</h1>\n{}"
      "<p class=\"state\">{} of {} · {}</p>\n</header>\n",
      EscapeMarkup(study.name), description, content.statistics.rounds,
      FormatCount(study.rounds.rounds, "round"), StateOf(content.record));
}

}  // namespace

std::string RenderPage(const ReportContent& content) {
  // The policy makes a browser refuse what this page never asks for: scripts, and any network.
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<title>{} – Isoscan fairness report</title>\n<style>\n{}</style>\n</head>\n"
      "<body>\n<main>\n{}{}{}{}{}{}{}{}{}{}{}{}{}{}</main>\n</body>\n</html>\n",
      EscapeMarkup(content.record.study.name), PageStyle(), Masthead(content), Overview(content),
      ScoresBySite(content), JoiningSection(content), PersonalSection(content),
      LearningCurves(content), ScoresByLabel(content), LowestScoringCases(content),
      IntensitySection(content), CertificateSection(content), ParticipationSection(content),
      TimeSection(content), LimitsSection(content), ProvenanceSection(content));
}

}  // namespace isoscan
