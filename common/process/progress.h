#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace isoscan {

/// Progress of one long piece of work on standard error: a bar that is redrawn on a terminal, one
/// plain line every ten seconds elsewhere. Prints nothing for work shorter than a second.
///
/// Thread safety: none.
class Progress {
 public:
  /// `title` such as "reading cases"; `total` steps, at least 1.
  Progress(std::string title, std::int64_t total);
  /// Ends the bar's line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `note` stands behind the bar, such as "loss 0.412".
  void Advance(std::int64_t done, const std::string& note = "");

 private:
  std::string title_;
  std::int64_t total_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_drawn_;
};

}  // namespace isoscan
