#include "common/tls/credentials.h"

#include <gmock/gmock.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "common/status/grpc_status.h"
#include "common/tls/openssl_handles.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_authority.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace isoscan {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr auto kPatience = std::chrono::seconds(20);

using UniqueSslContext = std::unique_ptr<SSL_CTX, OpenSslFree<SSL_CTX_free>>;
using UniqueSsl = std::unique_ptr<SSL, OpenSslFree<SSL_free>>;

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {
    // A peer that neither answers nor leaves must not hang the test.
    const timeval patience = {.tv_sec = kPatience.count(), .tv_usec = 0};
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~Socket() { close(descriptor_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// Answers every call with the URIs of the caller's certificate.
class WhoAmI final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    std::string uris;
    for (const grpc::string_ref& uri :
         context->auth_context()->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
      uris.append(uri.data(), uri.size());
    }
    return new Answer(uris);
  }

 private:
  class Answer final : public grpc::ServerGenericBidiReactor {
   public:
    explicit Answer(const std::string& text) {
      const grpc::Slice slice(text);
      response_ = grpc::ByteBuffer(&slice, 1);
      StartWriteAndFinish(&response_, {}, grpc::Status::OK);
    }
    void OnDone() override { delete this; }

   private:
    grpc::ByteBuffer response_;
  };
};

class GrpcServer {
 public:
  explicit GrpcServer(const TlsFiles& files) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", ServerCredentials(files), &port_);
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
  }

  int port() const { return port_; }

  /// The URIs by which the server knows a caller with these files.
  absl::StatusOr<std::string> Ask(const TlsFiles& files,
                                  const std::string& host = "127.0.0.1") const {
    return AskAt(port_, files, host);
  }

  static absl::StatusOr<std::string> AskAt(int port, const TlsFiles& files,
                                           const std::string& host = "127.0.0.1") {
    grpc::GenericStub stub(
        grpc::CreateChannel(host + ":" + std::to_string(port), ChannelCredentials(files)));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const grpc::Slice nothing("");
    const grpc::ByteBuffer request(&nothing, 1);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> answered;
    stub.UnaryCall(&context, "/test/WhoAmI", {}, &request, &response,
                   [&answered](grpc::Status status) { answered.set_value(std::move(status)); });
    RETURN_IF_ERROR(FromGrpcStatus(answered.get_future().get()));
    grpc::Slice slice;
    if (!response.DumpToSingleSlice(&slice).ok()) return absl::InternalError("no answer");
    return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }

 private:
  WhoAmI service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

UniqueSslContext Context(const SSL_METHOD* method, int minimum_version, int maximum_version) {
  UniqueSslContext context(SSL_CTX_new(method));
  SSL_CTX_set_min_proto_version(context.get(), minimum_version);
  SSL_CTX_set_max_proto_version(context.get(), maximum_version);
  return context;
}

/// Shakes hands with a server as a plain OpenSSL client; answers with the version agreed upon.
absl::StatusOr<std::string> OpenSslHandshake(int port, int minimum_version, int maximum_version) {
  const Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
  const sockaddr_in address = Loopback(port);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::UnavailableError("cannot connect");
  }
  const UniqueSslContext context = Context(TLS_client_method(), minimum_version, maximum_version);
  const UniqueSsl ssl(SSL_new(context.get()));
  constexpr unsigned char kProtocols[] = "\x02h2";
  SSL_set_alpn_protos(ssl.get(), kProtocols, sizeof(kProtocols) - 1);
  SSL_set_fd(ssl.get(), socket.get());
  if (SSL_connect(ssl.get()) != 1) return absl::AbortedError(OpenSslError());
  return SSL_get_version(ssl.get());
}

/// A plain OpenSSL server for one connection.
class OpenSslServer {
 public:
  OpenSslServer(const TlsFiles& files, int minimum_version, int maximum_version)
      : context_(Context(TLS_server_method(), minimum_version, maximum_version)),
        listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const UniqueBio certificate_pem(BIO_new_mem_buf(files.certificate.data(), -1));
    const UniqueBio key_pem(BIO_new_mem_buf(files.private_key.data(), -1));
    const UniqueCertificate certificate(
        PEM_read_bio_X509(certificate_pem.get(), nullptr, nullptr, nullptr));
    const UniqueKey key(PEM_read_bio_PrivateKey(key_pem.get(), nullptr, nullptr, nullptr));
    SSL_CTX_use_certificate(context_.get(), certificate.get());
    SSL_CTX_use_PrivateKey(context_.get(), key.get());
    SSL_CTX_set_alpn_select_cb(
        context_.get(),
        [](SSL*, const unsigned char** chosen, unsigned char* size, const unsigned char*, unsigned,
           void*) {
          *chosen = reinterpret_cast<const unsigned char*>("h2");
          *size = 2;
          return SSL_TLSEXT_ERR_OK;
        },
        nullptr);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), size);
    listen(listener_.get(), 1);
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    handshake_ = std::async(std::launch::async, [this] { return Handshake(); });
  }

  int port() const { return port_; }
  absl::StatusOr<std::string> AwaitHandshake() { return handshake_.get(); }

 private:
  absl::StatusOr<std::string> Handshake() {
    const Socket connection(accept(listener_.get(), nullptr, nullptr));
    const UniqueSsl ssl(SSL_new(context_.get()));
    SSL_set_fd(ssl.get(), connection.get());
    if (SSL_accept(ssl.get()) != 1) return absl::AbortedError(OpenSslError());
    return SSL_get_version(ssl.get());
  }

  UniqueSslContext context_;
  Socket listener_;
  int port_ = 0;
  std::future<absl::StatusOr<std::string>> handshake_;
};

class CredentialsTest : public testing::Test {
 protected:
  // Before the first gRPC call of this process, as in main().
  static void SetUpTestSuite() {
    RequireTls13();
    LogGrpcAsDebug();
  }

  /// What a client has that has not enrolled.
  TlsFiles Stranger() const { return {.authority = authority_.certificate()}; }

  const TestAuthority authority_;
  const TestAuthority another_authority_;
};

TEST_F(CredentialsTest, TheServerKnowsASiteByTheUriOfItsCertificate) {
  const GrpcServer server(authority_.Server());

  EXPECT_THAT(server.Ask(authority_.Site("north")), IsOkAndHolds("urn:isoscan:site:north"));
  EXPECT_THAT(server.Ask(authority_.Operator("lead"), "localhost"),
              IsOkAndHolds("urn:isoscan:operator:lead"));
}

TEST_F(CredentialsTest, AClientWithoutCertificateComesThroughWithoutAName) {
  const GrpcServer server(authority_.Server());

  EXPECT_THAT(server.Ask(Stranger()), IsOkAndHolds(""));
}

TEST_F(CredentialsTest, TheCertificateOfAnotherAuthorityEndsTheHandshake) {
  const GrpcServer server(authority_.Server());
  TlsFiles impostor = another_authority_.Site("north");
  impostor.authority = authority_.certificate();

  EXPECT_THAT(server.Ask(impostor), StatusIs(kUnavailable));
}

TEST_F(CredentialsTest, AnExpiredOrFutureCertificateEndsTheHandshake) {
  using Validity = TestAuthority::Validity;
  const GrpcServer server(authority_.Server());

  EXPECT_THAT(server.Ask(authority_.Site("north", Validity::kExpired)), StatusIs(kUnavailable));
  EXPECT_THAT(server.Ask(authority_.Site("north", Validity::kNotYet)), StatusIs(kUnavailable));
}

TEST_F(CredentialsTest, TheClientTrustsOnlyItsAuthority) {
  const GrpcServer server(authority_.Server());

  EXPECT_THAT(server.Ask(another_authority_.Site("north")), StatusIs(kUnavailable));
  EXPECT_THAT(server.Ask({}), StatusIs(kUnavailable));
}

TEST_F(CredentialsTest, TheClientRefusesAServerOfAnotherNameOrOutOfItsTime) {
  const GrpcServer named(authority_.Named({"DNS:isoscan.example.org"}));
  const GrpcServer expired(authority_.Server("localhost", TestAuthority::Validity::kExpired));

  EXPECT_THAT(named.Ask(authority_.Site("north")), StatusIs(kUnavailable));
  EXPECT_THAT(expired.Ask(authority_.Site("north")), StatusIs(kUnavailable));
}

TEST_F(CredentialsTest, TheServerSpeaksTls13AndNothingOlder) {
  const GrpcServer server(authority_.Server());

  EXPECT_THAT(OpenSslHandshake(server.port(), TLS1_3_VERSION, TLS1_3_VERSION),
              IsOkAndHolds("TLSv1.3"));
  EXPECT_THAT(OpenSslHandshake(server.port(), TLS1_2_VERSION, TLS1_3_VERSION),
              IsOkAndHolds("TLSv1.3"));
  EXPECT_THAT(OpenSslHandshake(server.port(), TLS1_2_VERSION, TLS1_2_VERSION),
              // gRPC closes the connection without saying why.
              StatusIs(absl::StatusCode::kAborted,
                       AnyOf(HasSubstr("unexpected eof"), HasSubstr("handshake failure"))));
}

TEST_F(CredentialsTest, TheClientSpeaksTls13AndNothingOlder) {
  OpenSslServer newest(authority_.Server(), TLS1_2_VERSION, TLS1_3_VERSION);
  EXPECT_THAT(GrpcServer::AskAt(newest.port(), Stranger()), StatusIs(kUnavailable))
      << "this server ends after the handshake";
  EXPECT_THAT(newest.AwaitHandshake(), IsOkAndHolds("TLSv1.3"));

  OpenSslServer older(authority_.Server(), TLS1_2_VERSION, TLS1_2_VERSION);
  EXPECT_THAT(GrpcServer::AskAt(older.port(), Stranger()), StatusIs(kUnavailable));
  EXPECT_THAT(older.AwaitHandshake(),
              StatusIs(absl::StatusCode::kAborted,
                       AnyOf(HasSubstr("no shared cipher"), HasSubstr("no ciphers"))));
}

// In a process of its own, since gRPC reads its list of ciphers once: without RequireTls13 the very
// handshake succeeds that fails above.
TEST(WithoutRequireTls13DeathTest, AnOlderHandshakeSucceeds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const TestAuthority authority;
        const GrpcServer server(authority.Server());
        const auto version = OpenSslHandshake(server.port(), TLS1_2_VERSION, TLS1_2_VERSION);
        std::_Exit(version.ok() && *version == "TLSv1.2" ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace isoscan
