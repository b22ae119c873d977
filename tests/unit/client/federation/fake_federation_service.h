#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/tls/credentials.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/sha256.h"
#include "proto/federation.grpc.pb.h"

namespace isoscan {

/// A server that does what a test tells it to, over real gRPC and mutual TLS. It keeps upload bytes
/// as they come and can cut either direction once.
class FakeFederationService final : public v1::Federation::Service {
 public:
  /// `port` 0: any that is free.
  explicit FakeFederationService(const TlsFiles& files, int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), ServerCredentials(files), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeFederationService() override {
    EndStreams(grpc::Status(grpc::StatusCode::UNAVAILABLE, "shutting down"));
    server_->Shutdown();
  }

  int port() const { return port_; }
  std::string address() const { return "localhost:" + std::to_string(port_); }

  // --- What the test sets ------------------------------------------------------------------------
  grpc::Status hello = grpc::Status::OK;
  std::string certificate;  ///< What Enrol answers with, PEM.
  std::string model;
  /// Answers of the next downloads: cut after so many chunks (-1: never), broken or not.
  struct Download {
    int chunks = -1;
    bool broken = false;
  };
  std::deque<Download> downloads;
  std::deque<int> upload_cuts;  ///< The next uploads end after so many chunks.
  int lost_answers = 0;         ///< So many submissions are taken in and answered UNAVAILABLE.

  // --- What the test reads
  // -------------------------------------------------------------------------
  std::vector<std::int64_t> download_offsets;
  std::string uploaded;
  std::int64_t upload_bytes_received = 0;
  int uploads = 0;
  std::vector<v1::SubmitUpdateRequest> submissions;

  /// The next stream answers with these lists and then, where `ending` is not OK, ends.
  void Script(std::vector<v1::Assignments> lists, const grpc::Status& ending) {
    const std::lock_guard lock(mutex_);
    scripts_.push_back({std::move(lists), ending});
  }
  void EndStreams(const grpc::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      stream_end_ = status;
      ending_ = true;
    }
    changed_.notify_all();
  }

 private:
  grpc::Status Hello(grpc::ServerContext*, const v1::HelloRequest*,
                     v1::HelloResponse* response) override {
    response->set_protocol_version(kProtocolVersion);
    response->set_program_version(kVersion);
    response->set_site("north");
    return hello;
  }

  grpc::Status DownloadModel(grpc::ServerContext*, const v1::DownloadModelRequest* request,
                             grpc::ServerWriter<v1::ModelChunk>* stream) override {
    download_offsets.push_back(request->offset());
    Download plan;
    if (!downloads.empty()) {
      plan = downloads.front();
      downloads.pop_front();
    }
    auto offset = static_cast<std::size_t>(request->offset());
    for (; plan.chunks != 0 && offset < model.size(); --plan.chunks) {
      v1::ModelChunk chunk;
      chunk.set_offset(static_cast<std::int64_t>(offset));
      chunk.set_data(model.substr(offset, kChunkBytes));
      offset += chunk.data().size();
      if (plan.broken) chunk.mutable_data()->front() ^= 1;
      stream->Write(chunk);
    }
    if (offset < model.size()) return {grpc::StatusCode::UNAVAILABLE, "cut"};
    return grpc::Status::OK;
  }

  grpc::Status BeginUpload(grpc::ServerContext*, const v1::BeginUploadRequest* request,
                           v1::BeginUploadResponse* response) override {
    announced_ = *request;
    response->set_offset(static_cast<std::int64_t>(uploaded.size()));
    return grpc::Status::OK;
  }

  grpc::Status Upload(grpc::ServerContext*, grpc::ServerReader<v1::UploadChunk>* stream,
                      v1::UploadResponse*) override {
    ++uploads;
    int cut = -1;
    if (!upload_cuts.empty()) {
      cut = upload_cuts.front();
      upload_cuts.pop_front();
    }
    v1::UploadChunk chunk;
    while (stream->Read(&chunk)) {
      upload_bytes_received += static_cast<std::int64_t>(chunk.data().size());
      if (chunk.offset() != static_cast<std::int64_t>(uploaded.size())) {
        return {grpc::StatusCode::INVALID_ARGUMENT, "a gap"};
      }
      uploaded += chunk.data();
      if (--cut == 0) return {grpc::StatusCode::UNAVAILABLE, "cut"};
    }
    if (static_cast<std::int64_t>(uploaded.size()) < announced_.weights_bytes()) {
      return {grpc::StatusCode::UNAVAILABLE, "bytes are missing"};
    }
    if (Sha256Of(uploaded) != announced_.weights_digest()) {
      uploaded.clear();
      return {grpc::StatusCode::DATA_LOSS, "the digest differs"};
    }
    return grpc::Status::OK;
  }

  grpc::Status SubmitUpdate(grpc::ServerContext*, const v1::SubmitUpdateRequest* request,
                            v1::SubmitUpdateResponse*) override {
    submissions.push_back(*request);
    if (lost_answers-- > 0) return {grpc::StatusCode::UNAVAILABLE, "the answer is lost"};
    return grpc::Status::OK;
  }

  grpc::Status Enrol(grpc::ServerContext*, const v1::EnrolRequest*,
                     v1::EnrolResponse* response) override {
    response->set_certificate_pem(certificate);
    return grpc::Status::OK;
  }
  grpc::Status WatchAssignments(grpc::ServerContext*, const v1::WatchRequest*,
                                grpc::ServerWriter<v1::Assignments>* stream) override {
    Stream script;
    {
      const std::lock_guard lock(mutex_);
      if (!scripts_.empty()) {
        script = scripts_.front();
        scripts_.pop_front();
      }
    }
    for (const v1::Assignments& list : script.lists) stream->Write(list);
    if (!script.ending.ok()) return script.ending;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ending_; });
    return stream_end_;
  }

  struct Stream {
    std::vector<v1::Assignments> lists;
    grpc::Status ending;
  };

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  v1::BeginUploadRequest announced_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Stream> scripts_;
  grpc::Status stream_end_;
  bool ending_ = false;
};

}  // namespace isoscan
