# Every foreign library, in the one order that works: Torch defines a hollow protobuf::libprotobuf
# unless Protobuf and gRPC were found before it.

# A LibTorch from PyPI or pytorch.org has the headers of another protobuf and fmt beside its own: its
# folder is shown to nobody but Torch.
set(torch_prefixes ${CMAKE_PREFIX_PATH})
list(FILTER torch_prefixes INCLUDE REGEX "/(lib)?torch/?$")
list(FILTER CMAKE_PREFIX_PATH EXCLUDE REGEX "/(lib)?torch/?$")

find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(OpenSSL 3 REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(tomlplusplus CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Boost 1.74 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)

if(ISOSCAN_CLIENT)
  if(ISOSCAN_CUDA)
    # LibTorch looks for the architectures of every CUDA version it knows, also those that this one
    # has dropped, unless TORCH_CUDA_ARCH_LIST is set as a CMake variable (preset `cuda`).
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    enable_language(CUDA)
  endif()
  list(APPEND CMAKE_PREFIX_PATH ${torch_prefixes})
  find_package(Torch REQUIRED)
  if(ISOSCAN_CUDA)
    if(NOT TORCH_CUDA_LIBRARIES AND NOT TARGET torch_cuda)
      message(FATAL_ERROR "The LibTorch in ${TORCH_INSTALL_PREFIX} has no CUDA: point "
                          "CMAKE_PREFIX_PATH at the torch folder of a wheel that has, or use the "
                          "preset release")
    endif()
    # PyPI's wheel keeps NCCL in a folder of its own, where LibTorch's CMake files do not look.
    file(GLOB nccl ${TORCH_INSTALL_PREFIX}/../nvidia/*/lib/libnccl.so.2)
    if(nccl)
      set_property(TARGET torch APPEND PROPERTY INTERFACE_LINK_LIBRARIES ${nccl})
    endif()
  endif()
  # ITK's use file is kept inside client/imaging: see client/imaging/CMakeLists.txt.
endif()

if(ISOSCAN_TESTS)
  find_package(GTest CONFIG REQUIRED)
endif()
if(ISOSCAN_BENCHMARKS)
  find_package(benchmark CONFIG REQUIRED)
endif()
