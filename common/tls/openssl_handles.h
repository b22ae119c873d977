/// OpenSSL's handles as owners, and its error queue as words.
#pragma once

#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace isoscan {

template <auto Free>
struct OpenSslFree {
  template <typename T>
  void operator()(T* handle) const {
    Free(handle);
  }
};

using UniqueBio = std::unique_ptr<BIO, OpenSslFree<BIO_free_all>>;
using UniqueKey = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;
using UniqueCertificate = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using UniqueSigningRequest = std::unique_ptr<X509_REQ, OpenSslFree<X509_REQ_free>>;
using UniqueGeneralNames = std::unique_ptr<GENERAL_NAMES, OpenSslFree<GENERAL_NAMES_free>>;
using UniqueExtension = std::unique_ptr<X509_EXTENSION, OpenSslFree<X509_EXTENSION_free>>;

/// The first error of this thread's queue in words; empties the queue.
std::string OpenSslError();

/// What was written to a memory BIO.
std::string TextOf(BIO* memory);

}  // namespace isoscan
