#include "common/weights/program_digest.h"

#include "common/weights/sha256.h"

namespace isoscan {

const std::string& ProgramDigest() {
  static const std::string digest = Sha256OfFile("/proc/self/exe").value_or("");
  return digest;
}

}  // namespace isoscan
