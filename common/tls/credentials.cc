#include "common/tls/credentials.h"

#include <grpc/grpc_security_constants.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <cstdlib>

namespace isoscan {

void RequireTls13() {
  // A pre-shared-key suite alone: OpenSSL accepts the list, and as gRPC registers no such key it
  // can never be agreed upon. TLS 1.3 has suites of its own, which this list does not touch. An
  // empty list, or one of TLS 1.3 names, is refused by OpenSSL.
  setenv("GRPC_SSL_CIPHER_SUITES", "PSK-AES256-GCM-SHA384", /*overwrite=*/1);
}

void ReconnectBetweenCalls() {
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100", /*overwrite=*/0);
}

void LogGrpcAsDebug() {
  gpr_set_log_function([](gpr_log_func_args* entry) {
    spdlog::debug("grpc severity={} message=\"{}\"", gpr_log_severity_string(entry->severity),
                  entry->message);
  });
}

std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files) {
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = files.authority;
  options.pem_key_cert_pairs.push_back({files.private_key, files.certificate});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const TlsFiles& files) {
  grpc::SslCredentialsOptions options;
  // Given nothing, gRPC would trust the authorities of the operating system; this it cannot parse,
  // so that no connection succeeds.
  options.pem_root_certs = files.authority.empty() ? "no authority" : files.authority;
  options.pem_cert_chain = files.certificate;
  options.pem_private_key = files.private_key;
  return grpc::SslCredentials(options);
}

}  // namespace isoscan
