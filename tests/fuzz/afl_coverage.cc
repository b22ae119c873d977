/// Tells AFL++ which code ran, for g++: the plugin that Debian 12 ships with AFL++ was made for
/// another build of g++ and does not load. g++ calls __sanitizer_cov_trace_pc() at every edge
/// (-fsanitize-coverage=trace-pc); the place is its return address, which a process forked by
/// afl-fuzz shares with the others.
#include <cstdint>

extern "C" {
extern std::uint8_t* __afl_area_ptr;  // 64 KiB, of AFL++'s afl-compiler-rt.o.

// The name is g++'s.
__attribute__((no_sanitize_coverage, no_sanitize("address", "undefined"))) void
__sanitizer_cov_trace_pc() {
  static thread_local std::uintptr_t previous = 0;
  std::uintptr_t place = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  place = (place * 0x9E3779B97F4A7C15U) >> 48;
  ++__afl_area_ptr[place ^ previous];
  previous = place >> 1;
}
}
