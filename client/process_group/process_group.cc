#include "client/process_group/process_group.h"

#include <fmt/format.h>

#include <utility>

#include "common/status/status_macros.h"

#ifdef ISOSCAN_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef ISOSCAN_CUDA
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <torch/version.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <thread>

#include <ATen/ATen.h>
#endif

namespace isoscan {

#ifdef ISOSCAN_GLOO
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

#if TORCH_VERSION_MAJOR >= 2
using Backend = c10d::Backend;
#else
using Backend = c10d::ProcessGroup;
#endif

/// How often a rank that waits asks whether there is news: no more than a moment beside a round. A
/// blocking call would not notice that rank 0's machine is gone, nor a stop request.
constexpr milliseconds kPause{100};
/// How long rank 0, which may have the store, waits for the others to read its last word.
constexpr milliseconds kFarewell{5000};
constexpr char kMetKey[] = "isoscan/met";
constexpr char kFarewellKey[] = "isoscan/read-the-last-word";

std::string TaskKey(std::int64_t number) { return fmt::format("isoscan/task/{}", number); }
std::string IdentityKey(int rank) { return fmt::format("isoscan/identity/{}", rank); }

std::vector<std::uint8_t> BytesOf(const std::string& text) { return {text.begin(), text.end()}; }

/// What c10d throws has many types, Gloo's among them.
template <typename Work>
absl::Status Try(const std::string& what, Work work) {
  try {
    work();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    std::string reason = error.what();
    reason.erase(std::min(reason.find('\n'), reason.size()));  // a backtrace
    return absl::AbortedError(fmt::format("{}: {}", what, reason));
  }
}

bool IsLoopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

}  // namespace

struct ProcessGroup::State {
  absl::Status Connect(const std::string& identity, const std::stop_token& stop);
  absl::Status OpenStore(steady_clock::time_point deadline, const std::stop_token& stop);
  absl::Status Meet(const std::string& identity, steady_clock::time_point deadline,
                    const std::stop_token& stop);
  absl::Status OpenGloo();
  absl::StatusOr<Backend*> BackendOf(const at::Tensor& values);
  absl::Status Lost(const absl::Status& reason) const;
  void WaitForAll(const std::string& key, std::int64_t count) const;

  Launch launch;
  Limits limits;
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<Backend> gloo;
  c10::intrusive_ptr<Backend> nccl;  ///< Made when a tensor is on a GPU.
  std::int64_t tasks = 0;
  bool lost = false;
};

absl::Status ProcessGroup::State::OpenStore(steady_clock::time_point deadline,
                                            const std::stop_token& stop) {
  // One attempt lasts no longer than an interrupt may be left unanswered.
  constexpr milliseconds kAttempt{3000};
  c10d::TCPStoreOptions options;
  options.port = launch.master_port;
  options.isServer = launch.rank == 0 && !launch.agent_listens;
  options.waitWorkers = false;
  options.timeout = kAttempt;
  while (true) {
    const absl::Status opened = Try("connecting", [&] {
      store = c10::make_intrusive<c10d::PrefixStore>(
          "isoscan/attempt/" + launch.attempt,
          c10::make_intrusive<c10d::TCPStore>(launch.master_address, options));
    });
    if (opened.ok()) break;
    if (options.isServer) {
      return absl::AbortedError(fmt::format("rank 0 cannot listen on port {} (MASTER_PORT): {}",
                                            launch.master_port, std::string(opened.message())));
    }
    if (stop.stop_requested()) return absl::CancelledError("interrupted before rank 0 was there");
    if (steady_clock::now() > deadline) {
      return absl::AbortedError(fmt::format(
          "rank {} does not reach rank 0 at {}:{} (MASTER_ADDR and MASTER_PORT): {}", launch.rank,
          launch.master_address, launch.master_port, std::string(opened.message())));
    }
    std::this_thread::sleep_for(kPause);
  }
  store->setTimeout(limits.collective);
  return absl::OkStatus();
}

absl::Status ProcessGroup::State::Meet(const std::string& identity,
                                       steady_clock::time_point deadline,
                                       const std::stop_token& stop) {
  RETURN_IF_ERROR(Try("meeting the other ranks",
                      [&] { store->set(IdentityKey(launch.rank), BytesOf(identity)); }));
  std::string missing;
  while (true) {
    missing.clear();
    RETURN_IF_ERROR(Try("meeting the other ranks", [&] {
      for (int rank = 0; rank < launch.world_size; ++rank) {
        if (store->check({IdentityKey(rank)})) continue;
        missing += fmt::format("{}{}", missing.empty() ? "" : ", ", rank);
      }
    }));
    if (missing.empty()) break;
    if (stop.stop_requested()) return absl::CancelledError("interrupted before every rank came");
    if (steady_clock::now() > deadline) {
      return absl::AbortedError(fmt::format(
          "of {} ranks (WORLD_SIZE), these did not come to {}:{} within {} s: {}",
          launch.world_size, launch.master_address, launch.master_port,
          std::chrono::duration_cast<std::chrono::seconds>(limits.join).count(), missing));
    }
    std::this_thread::sleep_for(kPause);
  }
  absl::Status same;
  RETURN_IF_ERROR(Try("meeting the other ranks", [&] {
    for (int rank = 0; rank < launch.world_size && same.ok(); ++rank) {
      const std::vector<std::uint8_t> bytes = store->get(IdentityKey(rank));
      const std::string other(bytes.begin(), bytes.end());
      if (other == identity) continue;
      same = absl::FailedPreconditionError(
          fmt::format("rank {} is \"{}\", rank {} is \"{}\"; every rank must run the same program",
                      launch.rank, identity, rank, other));
    }
    store->add(kMetKey, 1);
    if (!same.ok()) WaitForAll(kMetKey, launch.world_size);
  }));
  return same;
}

/// Until so many have added themselves to `key`; not for long.
void ProcessGroup::State::WaitForAll(const std::string& key, std::int64_t count) const {
  if (launch.rank != 0) return;
  const steady_clock::time_point deadline = steady_clock::now() + kFarewell;
  while (store->add(key, 0) < count && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPause);
  }
}

absl::Status ProcessGroup::State::OpenGloo() {
  // Gloo writes to a rank that has ended as to a file: without this, as in every Python program,
  // the signal would end this one without a word.
  std::signal(SIGPIPE, SIG_IGN);
  return Try("connecting the ranks", [&] {
    using c10d::ProcessGroupGloo;
    const auto options = ProcessGroupGloo::Options::create(limits.collective);
    if (!launch.interface.empty()) {
      options->devices.push_back(ProcessGroupGloo::createDeviceForInterface(launch.interface));
    } else if (IsLoopback(launch.master_address)) {
      // All ranks are on this machine: nothing need listen on its network.
      options->devices.push_back(ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    } else {
      options->devices.push_back(ProcessGroupGloo::createDefaultDevice());
    }
    gloo =
        c10::make_intrusive<ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>("gloo", store),
                                              launch.rank, launch.world_size, options);
  });
}

absl::Status ProcessGroup::State::Connect(const std::string& identity,
                                          const std::stop_token& stop) {
  const steady_clock::time_point deadline = steady_clock::now() + limits.join;
  RETURN_IF_ERROR(OpenStore(deadline, stop));
  RETURN_IF_ERROR(Meet(identity, deadline, stop));
  return OpenGloo();
}

absl::StatusOr<Backend*> ProcessGroup::State::BackendOf(const at::Tensor& values) {
  if (!values.is_cuda()) return gloo.get();
#ifdef ISOSCAN_CUDA
  if (nccl == nullptr) {
    RETURN_IF_ERROR(Try("connecting the ranks' GPUs", [&] {
      const auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = limits.collective;
      nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
          c10::make_intrusive<c10d::PrefixStore>("nccl", store), launch.rank, launch.world_size,
          options);
    }));
  }
#endif
  return nccl.get();
}

absl::Status ProcessGroup::State::Lost(const absl::Status& reason) const {
  if (reason.ok()) return reason;
  return absl::AbortedError(
      fmt::format("rank {} of {} has lost another rank, or waited {} s for it; start all of them "
                  "again, and training goes on from its last checkpoint ({})",
                  launch.rank, launch.world_size,
                  std::chrono::duration_cast<std::chrono::seconds>(limits.collective).count(),
                  std::string(reason.message())));
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(const Launch& launch,
                                                                 const std::string& identity,
                                                                 const Limits& limits,
                                                                 const std::stop_token& stop) {
  auto state = std::make_unique<State>();
  state->launch = launch;
  state->limits = limits;
  RETURN_IF_ERROR(state->Connect(identity, stop));
  return std::unique_ptr<ProcessGroup>(new ProcessGroup(std::move(state)));
}

ProcessGroup::~ProcessGroup() {
  if (state_->lost) return;
  static_cast<void>(Try("leaving", [&] {
    if (state_->launch.rank == 0) {
      state_->store->set(TaskKey(state_->tasks), BytesOf("end"));
      state_->WaitForAll(kFarewellKey, state_->launch.world_size - 1);
    } else {
      state_->store->add(kFarewellKey, 1);
    }
  }));
}

absl::Status ProcessGroup::Announce() {
  return state_->Lost(Try("announcing", [&] {
    state_->store->set(TaskKey(state_->tasks), BytesOf("task"));
    ++state_->tasks;
  }));
}

absl::StatusOr<bool> ProcessGroup::Await(const std::stop_token& stop) {
  const std::string key = TaskKey(state_->tasks);
  bool announced = false;
  bool is_task = false;
  while (!announced) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted between two tasks");
    const absl::Status asked = Try("waiting for rank 0", [&] {
      announced = state_->store->check({key});
      if (announced) is_task = state_->store->get(key) == BytesOf("task");
    });
    if (!asked.ok()) {
      state_->lost = true;
      return absl::AbortedError(fmt::format("rank {} has lost rank 0 ({})", state_->launch.rank,
                                            std::string(asked.message())));
    }
    if (!announced) std::this_thread::sleep_for(kPause);
  }
  ++state_->tasks;
  return is_task;
}

absl::Status ProcessGroup::Broadcast(std::span<std::byte> bytes) {
  if (bytes.empty()) return absl::OkStatus();
  const absl::Status sent = state_->Lost(Try("broadcasting", [&] {
    std::vector<at::Tensor> tensors = {at::from_blob(
        bytes.data(), {static_cast<std::int64_t>(bytes.size())}, at::TensorOptions(at::kByte))};
    state_->gloo->broadcast(tensors)->wait();
  }));
  state_->lost = !sent.ok();
  return sent;
}

absl::Status ProcessGroup::Broadcast(std::string& text) {
  std::uint64_t length = text.size();
  RETURN_IF_ERROR(Broadcast(std::as_writable_bytes(std::span(&length, 1))));
  text.resize(length);
  return Broadcast(std::as_writable_bytes(std::span(text)));
}

absl::StatusOr<std::vector<double>> ProcessGroup::Gather(std::span<const double> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<double> all(values.size() * static_cast<std::size_t>(size()));
  const absl::Status gathered = state_->Lost(Try("gathering", [&] {
    const at::TensorOptions type(at::kDouble);
    // from_blob takes no const pointer; the tensor is only read.
    std::vector<at::Tensor> own = {
        at::from_blob(const_cast<double*>(values.data()), {count}, type)};
    std::vector<std::vector<at::Tensor>> parts(1);
    for (int rank = 0; rank < size(); ++rank) {
      parts[0].push_back(at::from_blob(all.data() + rank * count, {count}, type));
    }
    state_->gloo->allgather(parts, own)->wait();
  }));
  state_->lost = !gathered.ok();
  RETURN_IF_ERROR(gathered);
  return all;
}

absl::Status ProcessGroup::Sum(at::Tensor& values) {
  ASSIGN_OR_RETURN(Backend* const backend, state_->BackendOf(values));
  const absl::Status summed = state_->Lost(Try("summing", [&] {
    const std::int64_t length = values.numel();
    const std::int64_t part = (length + size() - 1) / size();
    at::Tensor padded = at::zeros({part * size()}, values.options());
    padded.narrow(0, 0, length).copy_(values);
    at::Tensor received = at::empty_like(padded);
    std::vector<std::int64_t> even;
    backend->alltoall_base(received, padded, even, even)->wait();
    const std::vector<at::Tensor> of_rank = received.chunk(size());
    for (std::size_t rank = 1; rank < of_rank.size(); ++rank) of_rank[0].add_(of_rank[rank]);
    std::vector<at::Tensor> own = {of_rank[0]};
    std::vector<std::vector<at::Tensor>> parts = {padded.chunk(size())};
    backend->allgather(parts, own)->wait();
    values.copy_(padded.narrow(0, 0, length));
  }));
  state_->lost = !summed.ok();
  return summed;
}

#else  // no Gloo

struct ProcessGroup::State {
  Launch launch;
};

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(const Launch& launch,
                                                                 const std::string&, const Limits&,
                                                                 const std::stop_token&) {
  return absl::FailedPreconditionError(fmt::format(
      "WORLD_SIZE is {}, and this build trains in one process: Gloo's headers (Debian's "
      "libgloo-dev) or Gloo in LibTorch were not there when it was made",
      launch.world_size));
}

// Never called: there is no object.
ProcessGroup::~ProcessGroup() = default;
absl::Status ProcessGroup::Announce() { return absl::OkStatus(); }
absl::StatusOr<bool> ProcessGroup::Await(const std::stop_token&) { return false; }
absl::Status ProcessGroup::Broadcast(std::span<std::byte>) { return absl::OkStatus(); }
absl::Status ProcessGroup::Broadcast(std::string&) { return absl::OkStatus(); }
absl::StatusOr<std::vector<double>> ProcessGroup::Gather(std::span<const double>) {
  return std::vector<double>();
}
absl::Status ProcessGroup::Sum(at::Tensor&) { return absl::OkStatus(); }

#endif

ProcessGroup::ProcessGroup(std::unique_ptr<State> state) : state_(std::move(state)) {}
int ProcessGroup::rank() const { return state_->launch.rank; }
int ProcessGroup::size() const { return state_->launch.world_size; }
const Launch& ProcessGroup::launch() const { return state_->launch; }

}  // namespace isoscan
