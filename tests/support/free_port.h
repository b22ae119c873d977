#pragma once

#include <cstdint>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isoscan {

/// A port of 127.0.0.1 that nothing listened on a moment ago, for what must be told a number before
/// it listens; 0 when there is none.
inline std::uint16_t FreePort() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0) return 0;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool bound =
      ::bind(listener, any, length) == 0 && ::getsockname(listener, any, &length) == 0;
  ::close(listener);
  return bound ? ntohs(address.sin_port) : 0;
}

}  // namespace isoscan
