#pragma once

#include <string>

#include "server/fairness/fairness_statistics.h"
#include "server/fairness/study_record.h"

namespace isoscan {

/// What every section of the page is made of.
struct ReportContent {
  const StudyRecord& record;
  const StudyStatistics& statistics;
};

/// The whole page. Every number in a table carries the JSON pointer of its twin (`data-json`).
std::string RenderPage(const ReportContent& content);

/// The page's style sheet.
std::string PageStyle();

// The sections, from top to bottom. Each answers with HTML, or with nothing where a study has
// nothing to say on it.

/// One sentence, and the picture of all sites before and after.
std::string Overview(const ReportContent& content);
/// One row per site: what it brought, and what the model reaches there.
std::string ScoresBySite(const ReportContent& content);
/// Federated beside local-only, where the study asked for it.
std::string JoiningSection(const ReportContent& content);
/// Each site's own model beside the federated one, where the study has these.
std::string PersonalSection(const ReportContent& content);
std::string LearningCurves(const ReportContent& content);
std::string ScoresByLabel(const ReportContent& content);
std::string LowestScoringCases(const ReportContent& content);
/// Intensities of each site before and after harmonisation.
std::string IntensitySection(const ReportContent& content);
/// What changes of their scans do to the model, where hospitals measured it.
std::string CertificateSection(const ReportContent& content);
std::string ParticipationSection(const ReportContent& content);
std::string TimeSection(const ReportContent& content);
/// What this report cannot say, in plain words.
std::string LimitsSection(const ReportContent& content);
std::string ProvenanceSection(const ReportContent& content);

}  // namespace isoscan
