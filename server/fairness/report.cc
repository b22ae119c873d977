#include "server/fairness/report.h"

#include "common/status/status_macros.h"
#include "server/fairness/fairness_statistics.h"
#include "server/fairness/page.h"
#include "server/fairness/report_json.h"

namespace isoscan {

absl::StatusOr<RenderedReport> RenderReport(const StudyRecord& record) {
  ASSIGN_OR_RETURN(const StudyStatistics statistics, Summarize(record));
  const ReportContent content{record, statistics};
  return RenderedReport{.html = RenderPage(content), .json = RenderJson(content)};
}

}  // namespace isoscan
