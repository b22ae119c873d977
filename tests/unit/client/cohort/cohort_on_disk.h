/// Cohorts written into a temporary folder, for the tests of this module.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/cohort/cohort.h"
#include "client/imaging/image_file.h"
#include "common/study/study.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {

class CohortOnDisk {
 public:
  const std::filesystem::path& path() const { return folder_.path(); }

  CohortFolder folder() const {
    return {.name = "ward", .folder = path(), .labels = {}, .channels = {}};
  }

  /// An empty file is enough where no voxel is read.
  void Touch(const std::string& name) const { Text(name, ""); }

  void Text(const std::string& name, const std::string& text) const {
    std::ofstream(Made(name)) << text;
  }

  void Image(const std::string& name, const Volume& volume) const {
    ASSERT_OK(WriteVolume(Made(name), volume));
  }

  void Labels(const std::string& name, const LabelMap& labels) const {
    ASSERT_OK(WriteLabelMap(Made(name), labels));
  }

 private:
  std::filesystem::path Made(const std::string& name) const {
    const std::filesystem::path file = path() / name;
    std::filesystem::create_directories(file.parent_path());
    return file;
  }

  TemporaryDirectory folder_;
};

inline Study StudyOf(std::vector<std::string> channels, std::vector<std::string> labels) {
  Study study;
  study.name = "phantoms";
  study.channels = std::move(channels);
  study.labels = std::move(labels);
  return study;
}

inline std::vector<std::string> NamesOf(const std::vector<CaseFiles>& cases) {
  std::vector<std::string> names;
  for (const CaseFiles& files : cases) names.push_back(files.name);
  return names;
}

}  // namespace isoscan
