#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/study/study.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rpc/running_server.h"

namespace isoscan {

/// A server with the study `tiny`, which north and south have approved and the operator started.
class StartedStudy : public testing::Test {
 protected:
  void SetUp() override {
    north_files_ = server_.Enrol("north");
    south_files_ = server_.Enrol("south");
    Connect();
    v1::CreateStudyRequest request;
    request.set_toml(toml());
    ASSERT_OK_AND_ASSIGN(const v1::CreateStudyResponse created,
                         Call(*operations(), &v1::Operations::Stub::CreateStudy, request));
    digest_of_study_ = created.digest();
    for (v1::Federation::Stub* site : {north(), south()}) {
      v1::ApproveStudyRequest approval;
      approval.set_study("tiny");
      approval.set_digest(created.digest());
      approval.mutable_cohort()->set_training_cases(4);
      approval.mutable_cohort()->set_held_out_cases(1);
      for (v1::Histogram* histogram : {approval.mutable_cohort()->mutable_raw(),
                                       approval.mutable_cohort()->mutable_harmonized()}) {
        histogram->set_high(1);
        histogram->add_counts(8);
      }
      ASSERT_OK(Call(*site, &v1::Federation::Stub::ApproveStudy, approval));
    }
    ASSERT_OK(Call(*operations(), &v1::Operations::Stub::StartStudy, StudyRequest()));
  }

  void Restart() {
    server_.Restart();
    Connect();
  }

  static std::string toml() { return TinyStudyToml(); }
  static v1::StudyRequest StudyRequest() {
    v1::StudyRequest request;
    request.set_study("tiny");
    return request;
  }

  RunningServer& server() { return server_; }
  v1::Federation::Stub* north() { return north_.get(); }
  v1::Federation::Stub* south() { return south_.get(); }
  v1::Operations::Stub* operations() { return operations_.get(); }
  const std::string& digest_of_study() const { return digest_of_study_; }

 private:
  void Connect() {
    north_ = server_.Federation(north_files_);
    south_ = server_.Federation(south_files_);
    operations_ = server_.Operations(server_.Operator());
  }

  RunningServer server_;
  TlsFiles north_files_;
  TlsFiles south_files_;
  std::unique_ptr<v1::Federation::Stub> north_;
  std::unique_ptr<v1::Federation::Stub> south_;
  std::unique_ptr<v1::Operations::Stub> operations_;
  std::string digest_of_study_;
};

}  // namespace isoscan
