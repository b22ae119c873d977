#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "common/weights/safetensors.h"
#include "server/aggregation/staged_updates.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {

/// Updates, models and states as files in a folder of their own.
class StagedFiles {
 public:
  std::filesystem::path Write(const std::string& name, const NamedTensors& tensors) const {
    auto path = PathOf(name);
    EXPECT_OK(WriteSafetensors(path, tensors, {}));
    return path;
  }

  StagedUpdate Staged(const std::string& site, const NamedTensors& tensors,
                      double weight = 1) const {
    return {.site = site, .weights = Write(site, tensors), .weight = weight};
  }

  /// One update of one value for each number, from sites a, b, c, ...
  std::vector<StagedUpdate> Scalars(const std::vector<float>& values) const {
    std::vector<StagedUpdate> updates;
    for (const float value : values) {
      const std::string site(1, static_cast<char>('a' + updates.size()));
      updates.push_back(Staged(site, {{"w", {{}, {value}}}}));
    }
    return updates;
  }

  std::filesystem::path PathOf(const std::string& name) const {
    return folder_.path() / (name + ".safetensors");
  }
  std::filesystem::path output() const { return PathOf("output"); }

  NamedTensors Read(const std::filesystem::path& path) const {
    const auto file = SafetensorsFile::Open(path);
    EXPECT_OK(file);
    return file.ok() ? file->ReadAll() : NamedTensors();
  }
  NamedTensors Output() const { return Read(output()); }

  /// Nothing but what was staged lies in the folder: no output, nothing temporary.
  void ExpectNoOutput() const {
    EXPECT_FALSE(std::filesystem::exists(output()));
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      EXPECT_EQ(entry.path().extension(), ".safetensors") << entry.path();
    }
  }

 private:
  TemporaryDirectory folder_;
};

inline Tensor Row(std::vector<float> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {{count}, std::move(values)};
}

}  // namespace isoscan
