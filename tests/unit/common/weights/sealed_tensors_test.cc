#include "common/weights/sealed_tensors.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;

SealedTensors Content() {
  return {.tensors = {{"a", {.shape = {2, 1}, .values = {1.5F, -0.0F}}},
                      {"b", {.shape = {0}, .values = {}}}},
          .metadata = {{"step", "7"}}};
}

TEST(SealedTensors, ComeBackAsTheyWere) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteSealed(folder.path() / "kept", Content()));

  ASSERT_OK_AND_ASSIGN(const SealedTensors content, ReadSealed(folder.path() / "kept"));

  EXPECT_EQ(content.tensors, Content().tensors);
  EXPECT_EQ(content.metadata, Content().metadata);
}

TEST(SealedTensors, StayInTheirFileWhereThatIsOpened) {
  const TemporaryDirectory folder;
  SealedTensors content = Content();
  content.tensors["c"].values.assign(1'000'000, 0.25F);  // More than is hashed at once.
  content.tensors["c"].shape = {1000, 1000};
  ASSERT_OK(WriteSealed(folder.path() / "kept", content));

  ASSERT_OK_AND_ASSIGN(SafetensorsFile file, OpenSealed(folder.path() / "kept"));
  file.CloseDescriptor();

  EXPECT_EQ(file.ReadAll(), content.tensors);
  EXPECT_EQ(file.metadata().at("step"), "7");
}

TEST(SealedTensors, AreRefusedWithAnyBitChangedOrMissing) {
  const TemporaryDirectory folder;
  const std::filesystem::path file = folder.path() / "kept";
  ASSERT_OK(WriteSealed(file, Content()));
  std::ostringstream bytes;
  bytes << std::ifstream(file, std::ios::binary).rdbuf();
  const std::string whole = bytes.str();

  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 4);
    for (const std::string& text : {changed, whole.substr(0, i)}) {
      std::ofstream(file, std::ios::binary) << text;
      EXPECT_THAT(ReadSealed(file), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("kept is dam")))
          << i;
    }
  }
}

TEST(SealedTensors, AreNotFoundWhereNoneWereWrittenAndRefusedWithoutASeal) {
  const TemporaryDirectory folder;
  EXPECT_THAT(ReadSealed(folder.path() / "none"), StatusIs(absl::StatusCode::kNotFound));

  ASSERT_OK(WriteSafetensors(folder.path() / "open", Content().tensors, Content().metadata));
  EXPECT_THAT(ReadSealed(folder.path() / "open"), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace isoscan
