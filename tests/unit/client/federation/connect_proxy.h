#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isoscan {

/// An HTTP CONNECT proxy on loopback that takes every request to `target_port` of this machine,
/// whatever name it asks for, and remembers the request line.
class ConnectProxy {
 public:
  explicit ConnectProxy(int target_port) : target_port_(target_port) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = Loopback(0);
    socklen_t length = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        listen(listener_, 8) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      throw std::system_error(errno, std::generic_category(), "proxy");
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~ConnectProxy() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    {
      const std::lock_guard lock(mutex_);
      for (const int descriptor : open_) shutdown(descriptor, SHUT_RDWR);
    }
    for (std::thread& relay : relays_) relay.join();
  }
  ConnectProxy(const ConnectProxy&) = delete;
  ConnectProxy& operator=(const ConnectProxy&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  static sockaddr_in Loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  void Accept() {
    while (true) {
      const int client = accept(listener_, nullptr, nullptr);
      if (client < 0) return;
      const int server = socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in address = Loopback(target_port_);
      const std::lock_guard lock(mutex_);
      open_.push_back(client);
      open_.push_back(server);
      relays_.emplace_back([this, client, server, address] {
        Relay(client, server, address);
        const std::lock_guard closing(mutex_);
        std::erase(open_, client);
        std::erase(open_, server);
        close(client);
        close(server);
      });
    }
  }

  void Relay(int client, int server, const sockaddr_in& address) {
    std::string request;
    char byte = 0;
    while (!request.ends_with("\r\n\r\n")) {
      if (recv(client, &byte, 1, 0) != 1) return;
      request += byte;
    }
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request.substr(0, request.find('\r')));
    }
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return;
    const std::string answer = "HTTP/1.1 200 Connection established\r\n\r\n";
    send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
    std::array<pollfd, 2> ends{{{client, POLLIN, 0}, {server, POLLIN, 0}}};
    std::array<char, 16384> buffer{};
    while (poll(ends.data(), ends.size(), -1) > 0) {
      for (std::size_t from = 0; from < ends.size(); ++from) {
        if (ends[from].revents == 0) continue;
        const ssize_t count = recv(ends[from].fd, buffer.data(), buffer.size(), 0);
        if (count <= 0) return;
        send(ends[1 - from].fd, buffer.data(), static_cast<std::size_t>(count), MSG_NOSIGNAL);
      }
    }
  }

  int target_port_;
  int listener_ = -1;
  int port_ = 0;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<int> open_;
  std::vector<std::thread> relays_;
  std::thread acceptor_;
};

}  // namespace isoscan
