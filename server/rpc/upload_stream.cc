#include "server/rpc/upload_stream.h"

#include <fmt/format.h>

#include <cstddef>
#include <string>

#include "common/status/status_macros.h"
#include "server/rpc/refusal.h"

namespace isoscan {
namespace {

constexpr std::size_t kLargestChunk = 1 << 20;  // proto/federation.proto, UploadChunk.

}  // namespace

grpc::ServerReadReactor<v1::UploadChunk>* UploadStream::Start(
    Executor& executor, grpc::CallbackServerContext& context,
    const PeerAuthentication& authentication, Uploads& uploads, Coordinator& coordinator) {
  auto* const stream = new UploadStream(executor, context, authentication, uploads, coordinator);
  stream->StartRead(&stream->chunk_);
  return stream;
}

void UploadStream::OnReadDone(bool read) {
  // At its end the file goes to the disk.
  const Executor::Lane lane = read ? Executor::Lane::kQuick : Executor::Lane::kSlow;
  if (claim_.has_value()) return executor_.Run([this, read] { Step(read); }, lane);
  if (!executor_.TryRun([this, read] { Step(read); })) End(TooManyCalls());
}

void UploadStream::Step(bool read) {
  if (!read) return End(TakeEnd());
  const absl::Status taken = TakeChunk();
  if (!taken.ok()) return End(taken);
  StartRead(&chunk_);
}

absl::Status UploadStream::TakeChunk() {
  if (!claim_.has_value()) {
    ASSIGN_OR_RETURN(const std::string site, authentication_.Site(context_));
    ASSIGN_OR_RETURN(claim_, uploads_.ClaimFor(site, chunk_.study(), chunk_.weights_digest()));
    signs_.Begin(site, chunk_.study());
  }
  if (chunk_.data().size() > kLargestChunk) {
    return absl::InvalidArgumentError(fmt::format(
        "a chunk of {} bytes came, at most {} are allowed", chunk_.data().size(), kLargestChunk));
  }
  RETURN_IF_ERROR(claim_->upload->Append(claim_->number, chunk_.offset(), chunk_.data()));
  signs_.Note();
  return absl::OkStatus();
}

absl::Status UploadStream::TakeEnd() {
  if (context_.IsCancelled()) return absl::CancelledError("the sender is gone");
  if (!claim_.has_value()) {
    // Nothing came: also this answer is only for those who may call.
    RETURN_IF_ERROR(authentication_.Site(context_).status());
    return absl::InvalidArgumentError("an upload needs at least one chunk");
  }
  return claim_->upload->Finish(claim_->number);
}

void UploadStream::End(const absl::Status& status) {
  if (claim_.has_value()) claim_->upload->Release(claim_->number);
  Finish(EndOfCall("Upload", context_, status));
}

}  // namespace isoscan
