#include "client/process_group/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Launch> LaunchWith(const std::map<std::string, std::string>& environment) {
  return LaunchOf([&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launch, IsOneProcessUnlessWorldSizeSaysOtherwise) {
  ASSERT_OK_AND_ASSIGN(const Launch none, LaunchWith({{"RANK", "7"}}));
  EXPECT_EQ(none.world_size, 1);
  EXPECT_EQ(none.rank, 0);
  // As in a job of one task, whose other variables need not be there.
  ASSERT_OK_AND_ASSIGN(const Launch one, LaunchWith({{"WORLD_SIZE", "1"}}));
  EXPECT_EQ(one.world_size, 1);
}

TEST(Launch, ReadsWhatTorchrunSets) {
  ASSERT_OK_AND_ASSIGN(const Launch launch, LaunchWith({{"RANK", "5"},
                                                        {"WORLD_SIZE", "8"},
                                                        {"LOCAL_RANK", "1"},
                                                        {"LOCAL_WORLD_SIZE", "4"},
                                                        {"MASTER_ADDR", "node-1"},
                                                        {"MASTER_PORT", "29500"},
                                                        {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                                        {"TORCHELASTIC_RESTART_COUNT", "2"}}));
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.world_size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_world_size, 4);
  EXPECT_EQ(launch.master_address, "node-1");
  EXPECT_EQ(launch.master_port, 29500);
  EXPECT_TRUE(launch.agent_listens);
  EXPECT_EQ(launch.attempt, "2");
}

TEST(Launch, NamesTheVariableThatIsMissingOrWrong) {
  const std::map<std::string, std::string> whole{
      {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29500"}};
  ASSERT_OK(LaunchWith(whole));
  for (const char* const name : {"RANK", "MASTER_ADDR", "MASTER_PORT"}) {
    std::map<std::string, std::string> without = whole;
    without.erase(name);
    EXPECT_THAT(LaunchWith(without), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  }
  for (const auto& [name, value] : {std::pair{"RANK", "2"},
                                    {"RANK", "-1"},
                                    {"WORLD_SIZE", "0"},
                                    {"WORLD_SIZE", "two"},
                                    {"MASTER_PORT", "65536"},
                                    {"MASTER_PORT", ""},
                                    {"LOCAL_RANK", "2"},
                                    {"LOCAL_WORLD_SIZE", "3"}}) {
    std::map<std::string, std::string> wrong = whole;
    wrong[name] = value;
    EXPECT_THAT(LaunchWith(wrong), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)))
        << value;
  }
}

}  // namespace
}  // namespace isoscan
