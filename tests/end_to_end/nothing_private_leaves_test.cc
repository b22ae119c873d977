#include <cstring>

#include "client/imaging/image_file.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using NothingPrivateLeavesTest = FederationTest;

constexpr char kMarker[] = "Doe1951Jane";

/// Every file below `folder` that contains the marker.
std::vector<std::string> FilesWithMarker(const fs::path& folder) {
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ostringstream text;
    text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    const std::string bytes = text.str();
    if (entry.path().string().substr(folder.string().size()).find(kMarker) != std::string::npos ||
        bytes.find(kMarker) != std::string::npos) {
      found.push_back(entry.path().string());
    }
  }
  return found;
}

/// A marker in the folder's path, in every file's name, in the header's text, in the sidecar and,
/// as voxels' bytes, in the image: none of it may reach the server, its log or the report.
TEST_F(NothingPrivateLeavesTest, MarkersInNamesHeadersAndVoxelsStayAtTheSite) {
  ASSERT_OK(federation_.InitServer({}));
  const fs::path plain = MakeCohort("north", 1, 0);
  const fs::path marked = folder_.path() / "cohorts" / (std::string("scans-") + kMarker);
  const std::string subject = std::string("sub-") + kMarker;
  for (int patient = 1; patient <= 6; ++patient) {
    const std::string from = "sub-000" + std::to_string(patient);
    const std::string to = subject + std::to_string(patient);
    const fs::path anat = marked / to / "anat";
    const fs::path masks = marked / "derivatives" / "labels" / to / "anat";
    fs::create_directories(anat);
    fs::create_directories(masks);
    auto volume = ReadVolume(plain / from / "anat" / (from + "_T1w.nii.gz"));
    ASSERT_OK(volume);
    std::memcpy(volume->voxels.data(), kMarker, sizeof(kMarker));
    // Bytes of text are odd floats; keep the image finite and in range for the rest.
    for (std::size_t i = 0; i < 4; ++i) {
      if (!std::isfinite(volume->voxels[i])) volume->voxels[i] = 0;
    }
    ASSERT_OK(WriteVolume(anat / (to + "_T1w.nii"), *volume));
    std::fstream header(anat / (to + "_T1w.nii"), std::ios::in | std::ios::out | std::ios::binary);
    header.seekp(148);  // descrip of NIfTI-1: 80 bytes of free text.
    header.write(kMarker, sizeof(kMarker));
    std::ofstream(anat / (to + "_T1w.json")) << "{\"PatientName\": \"" << kMarker << "\"}";
    fs::copy_file(plain / "derivatives/labels" / from / "anat" / (from + "_label-ball_mask.nii.gz"),
                  masks / (to + "_label-ball_mask.nii.gz"));
  }
  fs::copy_file(plain / "dataset_description.json", marked / "dataset_description.json");
  fs::copy_file(plain / "derivatives/labels/dataset_description.json",
                marked / "derivatives/labels/dataset_description.json");
  ASSERT_EQ(FilesWithMarker(marked).size(), 18U) << "the test would be trivial without markers";

  ASSERT_OK(federation_.Enrol("north", {}));
  ASSERT_OK(federation_.Configure({.name = "north", .cohorts = {{.name = "", .folder = marked}}},
                                  "cpu", 1));
  CreateStudy(SmallStudy(1, "[rounds.quorum]\npolicy = \"all\"\n"));
  ApproveAll({"north"});
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}));
  ChildProcess north = StartClient("north");
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "watch", "ball"}), {}));
  ASSERT_TRUE(north.WaitFor(kPatience, {}));
  ASSERT_OK(north.Outcome());
  Report();

  EXPECT_THAT(FilesWithMarker(federation_.server_state()), ::testing::IsEmpty());
  EXPECT_THAT(FilesWithMarker(folder_.path() / "report"), ::testing::IsEmpty());
  EXPECT_EQ(TextOf(federation_.log("server")).find(kMarker), std::string::npos);
  EXPECT_EQ(TextOf(federation_.log("operator")).find(kMarker), std::string::npos);
}

}  // namespace
}  // namespace isoscan
