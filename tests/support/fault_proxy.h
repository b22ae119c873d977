#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

namespace isoscan {

/// What a test does to a link. Both ways of each connection have it.
struct BadLink {
  std::chrono::milliseconds delay{0};  ///< Of every byte.
  std::int64_t bytes_per_second = 0;   ///< 0: as many as come.
  /// A connection is reset once it has carried so many bytes, both ways together; 0: never.
  std::int64_t reset_after = 0;
  /// After so many bytes one way, and so many again, one bit of the next is wrong; 0: never.
  std::int64_t flip_after = 0;
};

/// A relay of TCP connections on loopback that treats them as badly as a test wants, since
/// `tc netem` needs rights and a kernel that a test does not have.
///
/// Thread safety: every method from any thread. Ends the program when the system has no socket for
/// it.
class FaultProxy {
 public:
  /// Relays to `target_port` of this machine, which need not listen yet.
  explicit FaultProxy(int target_port);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  int port() const;

  /// Of open connections, too.
  void SetLink(const BadLink& link);
  /// Resets every connection, and each new one, until Mend().
  void Cut();
  /// Nothing arrives, and nobody is told, until Mend(): as a link that has lost its way.
  void Stall();
  void Mend();

  /// What was handed on so far.
  std::int64_t bytes_to_target() const;
  std::int64_t bytes_from_target() const;
  /// Connections that it has reset or spoilt by a wrong bit.
  std::int64_t faults() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace isoscan
