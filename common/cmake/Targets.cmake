# isoscan_library(), isoscan_executable() and isoscan_test(): one static library per folder, whose
# link line is the architecture. Flags are set on our own targets only, never on a directory.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # base_dir lets builds in different folders share objects.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}
      CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
endif()

set(isoscan_warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)

function(isoscan_compile_settings target)
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:C,CXX>:${isoscan_warnings};-fno-fast-math;-ffp-contract=off>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;--expt-relaxed-constexpr>")
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  if(ISOSCAN_AFL)
    # See tests/fuzz/afl_coverage.cc.
    target_compile_options(${target} PRIVATE -fsanitize-coverage=trace-pc)
    target_link_libraries(${target} PUBLIC isoscan_afl)
  endif()
  if(ISOSCAN_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${ISOSCAN_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${ISOSCAN_SANITIZE})
  endif()
endfunction()

# isoscan_library(NAME SOURCES a.cc ... LINKS isoscan::x ... PRIVATE_LINKS foreign ...)
# Builds the static library isoscan_NAME with the alias isoscan::NAME.
# A library of headers alone gives no SOURCES and becomes an INTERFACE library.
function(isoscan_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  if(arg_SOURCES)
    add_library(isoscan_${name} STATIC ${arg_SOURCES})
    isoscan_compile_settings(isoscan_${name})
    target_link_libraries(isoscan_${name} PUBLIC ${arg_LINKS} PRIVATE ${arg_PRIVATE_LINKS})
  else()
    add_library(isoscan_${name} INTERFACE)
    target_include_directories(isoscan_${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(isoscan_${name} INTERFACE ${arg_LINKS})
  endif()
  add_library(isoscan::${name} ALIAS isoscan_${name})
endfunction()

# isoscan_executable(NAME SOURCES main.cc ... LINKS isoscan::x ...): lands in <build>/bin/NAME.
function(isoscan_executable name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  isoscan_compile_settings(${name})
  target_link_libraries(${name} PRIVATE ${arg_LINKS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

# isoscan_test(NAME LABELS unit SOURCES a_test.cc ... LINKS isoscan::x ...)
# One binary per module. Each GoogleTest case becomes one ctest case; name a slow one Slow* or give
# the binary the label `slow`.
function(isoscan_test name)
  cmake_parse_arguments(arg "" "MAIN;TIMEOUT" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  isoscan_compile_settings(${name})
  target_link_libraries(${name} PRIVATE ${arg_LINKS} GTest::gmock)
  if(arg_MAIN)
    target_sources(${name} PRIVATE ${arg_MAIN})
  else()
    target_link_libraries(${name} PRIVATE GTest::gmock_main)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  include(GoogleTest)
  # Tests share the cores: an OpenMP thread that waits must sleep, not spin.
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
                                  ENVIRONMENT OMP_WAIT_POLICY=passive)
endfunction()
