#include <fmt/format.h>

#include <exception>
#include <filesystem>

#include "tests/broken_inputs/broken_inputs.h"

int main(int argc, char** argv) {
  if (argc != 2 || argv[1][0] == '-' || std::filesystem::exists(argv[1])) {
    fmt::print(stderr, "usage: make_broken_inputs FOLDER, which must not be there yet\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  try {
    const isoscan::BrokenInputs cohort = isoscan::MakeBrokenCohort(folder / "bids");
    const isoscan::BrokenInputs dicom = isoscan::MakeBrokenDicom(folder / "dicom");
    fmt::print("{} broken and {} sound cases in {}\n", cohort.broken.size() + dicom.broken.size(),
               cohort.sound.size() + dicom.sound.size(), folder.string());
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 3;
  }
  return 0;
}
