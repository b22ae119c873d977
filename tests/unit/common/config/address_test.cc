#include "common/config/address.h"

#include <gtest/gtest.h>

namespace isoscan {
namespace {

TEST(IsAddress, TakesNamesAndAddressesWithAPort) {
  for (const char* const text : {"federation.example.org:8443", "localhost:1", "10.0.0.5:65535",
                                 "[::1]:8443", "st_marys-fed:8443"}) {
    EXPECT_TRUE(IsAddress(text)) << text;
  }
}

TEST(IsAddress, RefusesWhatIsNoHostAndPort) {
  for (const char* const text :
       {"", "localhost", "localhost:", ":8443", "localhost:0", "localhost:65536", "localhost:+1",
        "localhost:84 43", "::1:8443", "[]:8443", "unix:/tmp/x", "dns:///fed:8443",
        "localhost:8443\n[cohort]", "a\"b:8443", "a b:8443", "localhost:99999999999999999999"}) {
    EXPECT_FALSE(IsAddress(text)) << text;
  }
}

}  // namespace
}  // namespace isoscan
