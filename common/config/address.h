#pragma once

#include <string_view>

namespace isoscan {

/// Whether `text` is HOST:PORT, as one dials it: a name, an IPv4 address or an IPv6 address in
/// brackets, and a port from 1 to 65535. Nothing else that gRPC would take (unix:, dns:///).
bool IsAddress(std::string_view text);

}  // namespace isoscan
