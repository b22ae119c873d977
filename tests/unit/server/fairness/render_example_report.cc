// Writes reports of invented studies into a folder, for a look at the page:
//   render_example_report FOLDER
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "server/fairness/report.h"
#include "tests/unit/server/fairness/example_study.h"

namespace isoscan {
namespace {

int Write(const std::filesystem::path& folder, const std::string& name, const StudyRecord& record) {
  const absl::StatusOr<RenderedReport> report = RenderReport(record);
  if (!report.ok()) {
    std::cerr << report.status().ToString() << "\n";
    return 1;
  }
  std::ofstream(folder / (name + ".html")) << report->html;
  std::ofstream(folder / (name + ".json")) << report->json;
  return 0;
}

int WriteAll(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  StudyRecord unfinished = ExampleStudy({.rounds = 3});
  unfinished.finished = false;
  unfinished.ended = Time{};
  unfinished.scores.clear();
  StudyRecord empty = ExampleStudy({.sites = 0, .rounds = 0});
  empty.finished = false;
  empty.ended = Time{};
  return Write(folder, "four", ExampleStudy({})) +
         Write(folder, "twelve", ExampleStudy({.sites = 12, .labels = 8, .rounds = 40})) +
         Write(folder, "one", ExampleStudy({.sites = 1, .labels = 1, .local_only = false})) +
         Write(folder, "unfinished", unfinished) + Write(folder, "empty", empty);
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  if (argc != 2 || argv[1][0] == '-') {
    std::cerr << "usage: render_example_report FOLDER\n";
    return 2;
  }
  return isoscan::WriteAll(argv[1]);
}
