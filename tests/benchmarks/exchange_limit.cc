// The limit of tests/benchmarks/exchange: what gRPC over mutual TLS carries between a server and N
// processes, each bringing one file's bytes down and up in chunks of kChunkBytes, and what it costs
// that the server hashes them and has them on its disk at the end.
//
//   exchange_limit FOLDER BYTES PROCESSES REPEATS
//
// The last line is JSON, medians in seconds: "down" and "up" from memory to memory, "up_durable"
// with SHA-256 and fdatasync of a file in FOLDER for each process, "disk" the writing and
// fdatasync of as many files with nothing else; "round" is down and up_durable.

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/tls/credentials.h"
#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"
#include "proto/federation.grpc.pb.h"
#include "tests/support/test_authority.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;

void Require(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::_Exit(1);
}

// A file that is on the disk once Finish() returns.
class DurableFile {
 public:
  explicit DurableFile(const fs::path& path)
      : descriptor_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    Require(descriptor_ >= 0, "open");
  }
  ~DurableFile() { close(descriptor_); }
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  void Write(const std::string& bytes) const {
    Require(write(descriptor_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
            "write");
  }
  void Finish() const { Require(fdatasync(descriptor_) == 0, "fdatasync"); }

 private:
  int descriptor_;
};

// A chunk's text asks for what is to become of it: "" forgotten, otherwise a file of FOLDER.
class Service final : public v1::Federation::Service {
 public:
  Service(fs::path folder, std::int64_t bytes) : folder_(std::move(folder)), bytes_(bytes) {}

  grpc::Status DownloadModel(grpc::ServerContext* /*context*/,
                             const v1::DownloadModelRequest* /*request*/,
                             grpc::ServerWriter<v1::ModelChunk>* writer) override {
    v1::ModelChunk chunk;
    for (std::int64_t sent = 0; sent < bytes_; sent += kChunkBytes) {
      chunk.set_offset(sent);
      chunk.set_data(std::string(kChunkBytes, 'd'));
      if (!writer->Write(chunk)) break;
    }
    return grpc::Status::OK;
  }

  grpc::Status Upload(grpc::ServerContext* /*context*/, grpc::ServerReader<v1::UploadChunk>* reader,
                      v1::UploadResponse* /*response*/) override {
    v1::UploadChunk chunk;
    Sha256 sha256;
    std::unique_ptr<DurableFile> file;
    while (reader->Read(&chunk)) {
      if (!chunk.study().empty()) file = std::make_unique<DurableFile>(folder_ / chunk.study());
      if (file == nullptr) continue;
      sha256.Update(chunk.data());
      file->Write(chunk.data());
    }
    if (file != nullptr) file->Finish();
    return grpc::Status::OK;
  }

 private:
  const fs::path folder_;
  const std::int64_t bytes_;
};

// One process beside this one, which does a phase for each byte that it is sent.
struct Peer {
  pid_t id = 0;
  int orders = -1;
  int answers = -1;
};

enum class Phase : char { kDown = 'd', kUp = 'u', kUpDurable = 'f', kEnd = 'e' };

void Download(v1::Federation::Stub& stub) {
  grpc::ClientContext context;
  const auto stream = stub.DownloadModel(&context, v1::DownloadModelRequest());
  v1::ModelChunk chunk;
  while (stream->Read(&chunk)) {
  }
  Require(stream->Finish().ok(), "download");
}

void SendUp(v1::Federation::Stub& stub, const std::string& file, std::int64_t bytes) {
  grpc::ClientContext context;
  v1::UploadResponse response;
  const auto stream = stub.Upload(&context, &response);
  v1::UploadChunk chunk;
  chunk.set_study(file);
  for (std::int64_t sent = 0; sent < bytes; sent += kChunkBytes) {
    chunk.set_offset(sent);
    chunk.set_data(std::string(kChunkBytes, 'u'));
    if (!stream->Write(chunk)) break;
    chunk.clear_study();
  }
  stream->WritesDone();
  Require(stream->Finish().ok(), "upload");
}

// In a process of its own, which has not used gRPC before the fork.
[[noreturn]] void Serve(int orders, int answers, const TlsFiles& files, std::int64_t bytes,
                        const std::string& name) {
  int port = 0;
  Require(read(orders, &port, sizeof(port)) == sizeof(port), "port");
  const auto stub = v1::Federation::NewStub(
      grpc::CreateChannel(fmt::format("localhost:{}", port), ChannelCredentials(files)));
  Phase phase{};
  while (read(orders, &phase, 1) == 1 && phase != Phase::kEnd) {
    if (phase == Phase::kDown) {
      Download(*stub);
    } else {
      SendUp(*stub, phase == Phase::kUpDurable ? name : "", bytes);
    }
    Require(write(answers, &phase, 1) == 1, "answer");
  }
  std::_Exit(0);
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void WriteFiles(const fs::path& folder, std::int64_t bytes, int count) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      const DurableFile file(folder / fmt::format("disk-{}", i));
      const std::string chunk(kChunkBytes, 'w');
      for (std::int64_t written = 0; written < bytes; written += kChunkBytes) file.Write(chunk);
      file.Finish();
    });
  }
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Measure(const fs::path& folder, std::int64_t bytes, int processes, int repeats) {
  RequireTls13();
  const TestAuthority authority;
  std::vector<Peer> peers;
  for (int i = 0; i < processes; ++i) {
    int orders[2];
    int answers[2];
    Require(pipe2(orders, O_CLOEXEC) == 0 && pipe2(answers, O_CLOEXEC) == 0, "pipe");
    const std::string name = fmt::format("site-{}", i);
    const TlsFiles files = authority.Site(name);
    const pid_t child = fork();
    Require(child >= 0, "fork");
    if (child == 0) Serve(orders[0], answers[1], files, bytes, name);
    peers.push_back({child, orders[1], answers[0]});
  }

  Service service(folder, bytes);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  builder.AddListeningPort("localhost:0", ServerCredentials(authority.Server()), &port);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  Require(server != nullptr, "server");
  for (const Peer& peer : peers) Require(write(peer.orders, &port, sizeof(port)) > 0, "port");

  const auto all = [&](Phase phase) {
    return Seconds([&] {
      for (const Peer& peer : peers) Require(write(peer.orders, &phase, 1) == 1, "order");
      char answer = 0;
      for (const Peer& peer : peers) Require(read(peer.answers, &answer, 1) == 1, "answer");
    });
  };
  all(Phase::kDown);  // Handshakes, and memory.
  std::map<std::string, std::vector<double>> seconds;
  for (int i = 0; i < repeats; ++i) {
    seconds["down"].push_back(all(Phase::kDown));
    seconds["up"].push_back(all(Phase::kUp));
    seconds["up_durable"].push_back(all(Phase::kUpDurable));
    seconds["round"].push_back(seconds["down"].back() + seconds["up_durable"].back());
    seconds["disk"].push_back(Seconds([&] { WriteFiles(folder, bytes, processes); }));
  }
  for (const Peer& peer : peers) {
    const Phase end = Phase::kEnd;
    Require(write(peer.orders, &end, 1) == 1 && waitpid(peer.id, nullptr, 0) == peer.id, "end");
  }
  server->Shutdown();

  std::string line =
      fmt::format(R"({{"what": "limit", "bytes": {}, "processes": {})", bytes, processes);
  for (const auto& [name, times] : seconds)
    line += fmt::format(R"(, "{}_s": {:.4f})", name, Median(times));
  fmt::print("{}}}\n", line);
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("see the top of exchange_limit.cc\n", stderr);
    return 2;
  }
  isoscan::Measure(argv[1], std::atoll(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]));
}
