#include "tests/support/fault_proxy.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isoscan {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostQueued = 256 * 1024;
constexpr std::chrono::milliseconds kTick(2);
constexpr std::chrono::milliseconds kIdle(20);

int Checked(int result, const char* what) {
  if (result >= 0) return result;
  std::perror(what);
  std::abort();
}

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// The other end is told of a reset, not of an end.
void Reset(int socket) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(socket);
}

// Bytes on their way in one direction.
struct Way {
  struct Piece {
    Clock::time_point arrives;
    std::string bytes;
  };
  std::deque<Piece> pieces;
  std::size_t queued = 0;
  std::int64_t taken = 0;
  double credit = 0;    // Bytes that may go now, where there is a limit.
  bool ended = false;   // The sender has closed its side.
  bool closed = false;  // And the receiver was told.
};

struct Connection {
  std::array<int, 2> ends;    // Of the client and of the target.
  std::array<Way, 2> ways{};  // From ends[i] to the other.
  Clock::time_point last = Clock::now();
};

}  // namespace

struct FaultProxy::State {
  enum class Weather { kFair, kCut, kStalled };

  int target_port;
  int listener = -1;
  int port = 0;
  std::mutex mutex;
  BadLink link;                      // Under the mutex,
  Weather weather = Weather::kFair;  // and so is this.
  std::array<std::atomic<std::int64_t>, 2> carried{};
  std::atomic<std::int64_t> faults = 0;
  std::atomic<bool> stopping = false;
  std::list<Connection> connections;  // The thread's alone.
  std::thread thread;

  explicit State(int target) : target_port(target) {
    listener = Checked(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    sockaddr_in address = Loopback(0);
    socklen_t length = sizeof(address);
    Checked(bind(listener, reinterpret_cast<sockaddr*>(&address), length), "bind");
    Checked(listen(listener, 64), "listen");
    Checked(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
    port = ntohs(address.sin_port);
    thread = std::thread([this] { Run(); });
  }

  ~State() {
    stopping = true;
    thread.join();
    for (const Connection& connection : connections) {
      for (const int end : connection.ends) Reset(end);
    }
    close(listener);
  }

  void Run() {
    while (!stopping) {
      BadLink now;
      Weather today{};
      {
        const std::lock_guard lock(mutex);
        now = link;
        today = weather;
      }
      if (today == Weather::kCut) {
        for (const Connection& connection : connections) {
          for (const int end : connection.ends) Reset(end);
          ++faults;
        }
        connections.clear();
      }
      Wait(today);
      Accept(today);
      if (today != Weather::kFair) continue;
      for (auto connection = connections.begin(); connection != connections.end();) {
        connection =
            Relay(*connection, now) ? std::next(connection) : connections.erase(connection);
      }
    }
  }

  // Until there is something to do, or may be.
  void Wait(Weather today) {
    std::vector<pollfd> sockets = {{.fd = listener, .events = POLLIN, .revents = 0}};
    bool queued = false;
    if (today == Weather::kFair) {
      for (const Connection& connection : connections) {
        for (std::size_t from = 0; from < 2; ++from) {
          const Way& way = connection.ways[from];
          queued |= way.queued > 0;
          if (!way.ended && way.queued < kMostQueued) {
            sockets.push_back({.fd = connection.ends[from], .events = POLLIN, .revents = 0});
          }
        }
      }
    }
    poll(sockets.data(), sockets.size(), static_cast<int>((queued ? kTick : kIdle).count()));
  }

  void Accept(Weather today) {
    while (true) {
      const int client = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      if (client < 0) return;
      const int target = Checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
      const sockaddr_in address = Loopback(target_port);
      if (today == Weather::kCut ||
          connect(target, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        Reset(client);
        close(target);
        continue;
      }
      fcntl(target, F_SETFL, O_NONBLOCK);
      connections.push_back({.ends = {client, target}});
    }
  }

  // False: the connection is over.
  bool Relay(Connection& connection, const BadLink& now) {
    const Clock::time_point time = Clock::now();
    const double seconds = std::chrono::duration<double>(time - connection.last).count();
    connection.last = time;
    for (std::size_t from = 0; from < 2; ++from) {
      Way& way = connection.ways[from];
      if (!Take(connection.ends[from], way, now, time)) return End(connection);
      const auto rate = static_cast<double>(now.bytes_per_second);
      // A tenth of a second's worth at once, at most.
      way.credit = std::min(way.credit + rate * seconds, rate / 10 + 1);
      if (!Give(connection.ends[1 - from], way, now, time, carried[from])) return End(connection);
    }
    if (now.reset_after > 0 &&
        connection.ways[0].taken + connection.ways[1].taken >= now.reset_after) {
      ++faults;
      return End(connection);
    }
    if (connection.ways[0].closed && connection.ways[1].closed) {
      for (const int end : connection.ends) close(end);
      return false;
    }
    return true;
  }

  static bool End(const Connection& connection) {
    for (const int end : connection.ends) Reset(end);
    return false;
  }

  bool Take(int from, Way& way, const BadLink& now, Clock::time_point time) {
    std::array<char, 16 * 1024> buffer{};
    while (!way.ended && way.queued < kMostQueued) {
      const ssize_t count = recv(from, buffer.data(), buffer.size(), 0);
      if (count < 0) return errno == EAGAIN || errno == EINTR;
      if (count == 0) {
        way.ended = true;
        return true;
      }
      std::string bytes(buffer.data(), static_cast<std::size_t>(count));
      if (now.flip_after > 0 &&
          way.taken / now.flip_after != (way.taken + count) / now.flip_after) {
        const std::int64_t at = (way.taken + count) / now.flip_after * now.flip_after - way.taken;
        char& byte = bytes[static_cast<std::size_t>(std::clamp<std::int64_t>(at, 0, count - 1))];
        byte = static_cast<char>(byte ^ 1);
        ++faults;
      }
      way.taken += count;
      way.queued += bytes.size();
      way.pieces.push_back({.arrives = time + now.delay, .bytes = std::move(bytes)});
    }
    return true;
  }

  static bool Give(int to, Way& way, const BadLink& now, Clock::time_point time,
                   std::atomic<std::int64_t>& carried) {
    while (!way.pieces.empty() && way.pieces.front().arrives <= time) {
      std::string& bytes = way.pieces.front().bytes;
      std::size_t most = bytes.size();
      if (now.bytes_per_second > 0) most = std::min(most, static_cast<std::size_t>(way.credit));
      if (most == 0) return true;
      const ssize_t count = send(to, bytes.data(), most, MSG_NOSIGNAL);
      if (count < 0) return errno == EAGAIN || errno == EINTR;
      carried += count;
      way.credit -= static_cast<double>(count);
      way.queued -= static_cast<std::size_t>(count);
      bytes.erase(0, static_cast<std::size_t>(count));
      if (bytes.empty()) way.pieces.pop_front();
    }
    if (way.ended && way.pieces.empty() && !way.closed) {
      shutdown(to, SHUT_WR);
      way.closed = true;
    }
    return true;
  }
};

FaultProxy::FaultProxy(int target_port) : state_(std::make_unique<State>(target_port)) {}
FaultProxy::~FaultProxy() = default;

int FaultProxy::port() const { return state_->port; }

void FaultProxy::SetLink(const BadLink& link) {
  const std::lock_guard lock(state_->mutex);
  state_->link = link;
}
void FaultProxy::Cut() {
  const std::lock_guard lock(state_->mutex);
  state_->weather = State::Weather::kCut;
}
void FaultProxy::Stall() {
  const std::lock_guard lock(state_->mutex);
  state_->weather = State::Weather::kStalled;
}
void FaultProxy::Mend() {
  const std::lock_guard lock(state_->mutex);
  state_->weather = State::Weather::kFair;
}

std::int64_t FaultProxy::bytes_to_target() const { return state_->carried[0]; }
std::int64_t FaultProxy::bytes_from_target() const { return state_->carried[1]; }
std::int64_t FaultProxy::faults() const { return state_->faults; }

}  // namespace isoscan
