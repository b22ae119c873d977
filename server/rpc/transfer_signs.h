#pragma once

#include <chrono>
#include <string>
#include <utility>

#include "server/rounds/coordinator.h"

namespace isoscan {

/// Tells the coordinator of the bytes of one transfer, at most once a second.
///
/// Thread safety: none.
class TransferSigns {
 public:
  explicit TransferSigns(Coordinator& coordinator) : coordinator_(coordinator) {}

  /// Whose transfer it is; before the first Note().
  void Begin(std::string site, std::string study) {
    site_ = std::move(site);
    study_ = std::move(study);
  }

  /// Some bytes more went over the wire.
  void Note() {
    const Steady::time_point now = Steady::now();
    if (now < next_) return;
    next_ = now + std::chrono::seconds(1);
    coordinator_.NoteTransfer(site_, study_);
  }

 private:
  using Steady = std::chrono::steady_clock;
  Coordinator& coordinator_;
  std::string site_;
  std::string study_;
  Steady::time_point next_{};
};

}  // namespace isoscan
