/// One program per fuzzer. Plain: runs every file that is named. With ISOSCAN_AFL: what afl-fuzz
/// starts. With --seeds FOLDER: writes the seeds.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <system_error>

#include "tests/fuzz/federation_fuzz.h"
#include "tests/fuzz/intake_fuzz.h"
#include "tests/support/temporary_directory.h"

#ifdef ISOSCAN_AFL
extern "C" int __afl_persistent_loop(unsigned int inputs);  // Of AFL++'s afl-compiler-rt.o.
#endif

namespace {

void RunFile(const char* file, const std::filesystem::path& folder) {
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  isoscan::ISOSCAN_FUZZ(bytes, folder);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--seeds") {
    std::filesystem::create_directories(argv[2]);
    for (const isoscan::FuzzSeed& seed : isoscan::ISOSCAN_SEEDS()) {
      std::ofstream(std::filesystem::path(argv[2]) / seed.name, std::ios::binary) << seed.bytes;
    }
    return 0;
  }
  if (argc < 2 || argv[1][0] == '-') {
    std::cerr << "usage: " << argv[0] << " FILE... | --seeds FOLDER\n";
    return 2;
  }
  const isoscan::TemporaryDirectory folder;
#ifdef ISOSCAN_AFL
  // By this text afl-fuzz knows that one process runs many inputs.
  static const char* volatile signature = "##SIG_AFL_PERSISTENT##";
  (void)signature;
  while (__afl_persistent_loop(2000) != 0) RunFile(argv[1], folder.path());
#else
  for (int i = 1; i < argc; ++i) RunFile(argv[i], folder.path());
#endif
  return 0;
}
