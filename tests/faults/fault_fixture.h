#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/imaging/image_file.h"
#include "common/transfer/chunks.h"
#include "common/weights/safetensors.h"
#include "deploy/sandbox/local_federation.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {

inline constexpr int kKilled = 128 + SIGKILL;
inline constexpr std::chrono::minutes kPatience{3};

/// A point, and the number of the passage that ends the process: "work.submitted:2"; "" for none.
using Fault = std::string;

/// Models of all rounds of a study, from 0.
using Models = std::map<std::string, NamedTensors>;

/// A server and three sites that only calculate (scripted_site.cc), as processes with fault points.
class FaultTest : public testing::Test {
 protected:
  static constexpr int kRounds = 3;

  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MakeCohort());
    ASSERT_OK(federation_.InitServer({}));
    for (const std::string& site : sites_) ASSERT_NO_FATAL_FAILURE(Enrol(site));
    ASSERT_NO_FATAL_FAILURE(Enrol("undecided"));
    ASSERT_NO_FATAL_FAILURE(StopServer());
  }

  /// Six cases in nnU-Net's layout.
  void MakeCohort() const {
    std::filesystem::create_directories(cohort_ / "imagesTr");
    std::filesystem::create_directories(cohort_ / "labelsTr");
    ASSERT_OK(WriteFileAtomically(cohort_ / "dataset.json",
                                  R"({"channel_names": {"0": "T1w"}, "numTraining": 6,
                                      "labels": {"background": 0, "blob": 1},
                                      "file_ending": ".nii.gz"})"));
    Volume image;
    image.geometry.size = {8, 8, 8};
    for (int voxel = 0; voxel < 512; ++voxel) {
      image.voxels.push_back(static_cast<float>(voxel % 97));
    }
    LabelMap labels{.geometry = image.geometry, .voxels = std::vector<std::uint8_t>(512)};
    for (std::size_t voxel = 100; voxel < 140; ++voxel) labels.voxels[voxel] = 1;
    for (int number = 0; number < 6; ++number) {
      ASSERT_OK(
          WriteVolume(cohort_ / "imagesTr" / fmt::format("case_{}_0000.nii.gz", number), image));
      ASSERT_OK(
          WriteLabelMap(cohort_ / "labelsTr" / fmt::format("case_{}.nii.gz", number), labels));
    }
  }

  void Enrol(const std::string& site) {
    ASSERT_OK(federation_.Enrol(site, {}));
    ASSERT_OK(federation_.Configure({.name = site, .cohorts = {{.name = "", .folder = cohort_}}},
                                    "cpu", 1));
  }

  Command Site(const std::string& site, std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(),
                     {"--config", (federation_.site_folder(site) / "client.toml").string()});
    return federation_.Client(site, std::move(arguments));
  }

  void StopServer() {
    federation_.server().Interrupt();
    ASSERT_TRUE(federation_.server().WaitFor(kPatience, {}));
  }

  /// Starts the server, again where the fault lies in its start.
  void StartServer(const Fault& fault = "") {
    // A child has our environment.
    ::setenv("ISOSCAN_FAULT", fault.c_str(), 1);
    ::setenv("ISOSCAN_FAULT_LOG", log_passages_ ? PassagesOf("server").c_str() : "", 1);
    absl::Status started = federation_.StartServer({});
    ::unsetenv("ISOSCAN_FAULT");
    if (!started.ok() && WasKilled(federation_.server())) started = federation_.StartServer({});
    ::unsetenv("ISOSCAN_FAULT_LOG");
    ASSERT_OK(started);
  }

  /// Notes that a process died of its fault.
  bool WasKilled(const ChildProcess& process) {
    if (process.exit_code() != kKilled) return false;
    ++deaths_;
    return true;
  }

  /// Starts the server again if it has died.
  void Revive() {
    if (!federation_.server().WaitFor(std::chrono::milliseconds(0), {})) return;
    ASSERT_TRUE(WasKilled(federation_.server())) << federation_.server().Outcome();
    ASSERT_NO_FATAL_FAILURE(StartServer());
  }

  /// As a person does: again, after the server was restarted, until it is done.
  void Do(const std::function<Command()>& command) {
    for (int attempt = 0; attempt < 3; ++attempt) {
      const absl::Status done = RunToEnd(command(), {});
      if (done.ok()) return;
      if (attempt > 0 && absl::IsFailedPrecondition(done)) return;  // Done, and the answer lost.
      // Time for a dying server to be dead.
      federation_.server().WaitFor(std::chrono::milliseconds(200), {});
      ASSERT_NO_FATAL_FAILURE(Revive());
      ASSERT_TRUE(attempt < 2) << done;
    }
  }
  void Operate(const std::vector<std::string>& arguments) {
    Do([&] { return federation_.Admin(arguments); });
  }

  std::string StudyText(const std::string& name, int rounds) const {
    return fmt::format(
        "name = \"{}\"\nchannels = [\"T1w\"]\nlabels = [\"blob\"]\n"
        "[held_out]\nrule = \"every\"\nevery = 3\n"
        "[network]\nfeatures = {}\nstrides = [[1, 1, 1], [2, 2, 2]]\n"
        "[training]\npatch_size = [8, 8, 8]\nbatch_size = 2\nsteps_per_round = 3\n"
        "[rounds]\nrounds = {}\naggregation = \"{}\"\n",
        name, features_, rounds, aggregation_);
  }

  /// From the study's creation to its start, and whatever an operator may do meanwhile.
  void Offer(const std::string& study, int rounds) {
    const std::filesystem::path file = folder_.path() / "study.toml";
    ASSERT_OK(WriteFileAtomically(file, StudyText(study, rounds)));
    ASSERT_NO_FATAL_FAILURE(Operate({"study", "create", file.string()}));
    for (const std::string& site : sites_) {
      ASSERT_NO_FATAL_FAILURE(Do([&] { return Site(site, {"approve", study}); }));
    }
    ASSERT_NO_FATAL_FAILURE(Do([&] { return Site("undecided", {"approve", study}); }));
    ASSERT_NO_FATAL_FAILURE(Do([&] { return Site("undecided", {"withdraw", study}); }));
    ASSERT_NO_FATAL_FAILURE(Operate({"study", "start", study}));
    ASSERT_NO_FATAL_FAILURE(Operate({"study", "pause", study}));
    ASSERT_NO_FATAL_FAILURE(Operate({"study", "resume", study}));
  }

  ChildProcess StartSite(const std::string& site, const Fault& fault = "") {
    Command command = Site(site, {"run"});
    command.environment["ISOSCAN_FAULT"] = fault;
    command.environment["ISOSCAN_FAULT_LOG"] = log_passages_ ? PassagesOf(site).string() : "";
    auto process = ChildProcess::Start(command);
    EXPECT_OK(process);
    return *std::move(process);
  }

  /// Lets the sites work until the study has ended; whoever is killed is started again.
  /// `between` is called every few milliseconds.
  void Work(const std::string& victim, const Fault& fault,
            const std::function<void(std::map<std::string, ChildProcess>&)>& between = {}) {
    std::map<std::string, ChildProcess> running;
    for (const std::string& site : sites_) {
      running.emplace(site, StartSite(site, site == victim ? fault : ""));
    }
    std::set<std::string> ended;
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (ended.size() < sites_.size()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the study does not end";
      ASSERT_NO_FATAL_FAILURE(Revive());
      for (auto& [site, process] : running) {
        if (ended.contains(site) || !process.WaitFor(std::chrono::milliseconds(2), {})) continue;
        if (WasKilled(process)) {
          process = StartSite(site);
          continue;
        }
        ASSERT_OK(process.Outcome());
        ended.insert(site);
      }
      if (between) between(running);
    }
  }

  /// The whole life of a study, with one death in it.
  Models RunStudy(const std::string& study, const std::string& victim = "",
                  const Fault& fault = "") {
    RunStudySteps(study, victim, fault);
    if (HasFatalFailure()) return {};
    return ModelsOf(study);
  }
  void RunStudySteps(const std::string& study, const std::string& victim, const Fault& fault) {
    deaths_ = 0;
    ASSERT_NO_FATAL_FAILURE(StartServer(victim == "server" ? fault : ""));
    ASSERT_NO_FATAL_FAILURE(Offer(study, kRounds));
    ASSERT_NO_FATAL_FAILURE(Work(victim, fault));
    ASSERT_NO_FATAL_FAILURE(StopServer());
  }

  /// From the server's folder; what no journal names would show as a second model of a round.
  Models ModelsOf(const std::string& study) const {
    Models models;
    for (const std::filesystem::directory_entry& entry :
         std::filesystem::directory_iterator(federation_.server_state() / "models")) {
      if (entry.path().extension() != ".safetensors") continue;
      const auto file = SafetensorsFile::Open(entry.path());
      EXPECT_OK(file);
      if (!file.ok() || file->metadata().at("study") != study) continue;
      EXPECT_TRUE(models.emplace(file->metadata().at("round"), file->ReadAll()).second)
          << "two models of round " << file->metadata().at("round");
    }
    return models;
  }

  std::filesystem::path PassagesOf(const std::string& process) const {
    return folder_.path() / ("passages." + process);
  }

  /// How often a process passed each point.
  std::map<std::string, int> CountPassages(const std::string& process) const {
    std::map<std::string, int> counts;
    std::ifstream file(PassagesOf(process));
    for (std::string name; std::getline(file, name);) ++counts[name];
    return counts;
  }

  /// OK: killed there, the study ends in the expected bits.
  void Expect(const std::string& victim, const Fault& fault, const Models& expected) {
    SCOPED_TRACE(victim + " killed at " + fault);
    const Models models = RunStudy(fmt::format("killed-{}", ++studies_), victim, fault);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(deaths_, 1) << "it never came there";
    EXPECT_TRUE(models == expected) << models.size() << " models, expected " << expected.size();
  }

  const std::vector<std::string> sites_ = {"north", "south", "west"};
  TemporaryDirectory folder_;
  const std::filesystem::path cohort_ = folder_.path() / "cohort";
  LocalFederation federation_{ISOSCAN_PROGRAMS, folder_.path() / "state", folder_.path() / "logs"};
  std::string features_ = "[16, 32]";
  std::string aggregation_ = "fedavg";
  bool log_passages_ = false;
  int deaths_ = 0;
  int studies_ = 0;
};

}  // namespace isoscan
