# The flags of every target, and the functions that make them.
include_guard()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache knows a file with precompiled headers again only when it may overlook their macros and times.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
endif()

add_library(varscope_flags INTERFACE)
# Contraction of a*b+c into one rounding would make an element's bits depend on where the vectoriser's remainder
# loop begins, that is on slices and chunks; and no bit of ours depends on errno or on floating-point traps.
target_compile_options(varscope_flags INTERFACE -Wall -Wextra -Wnon-virtual-dtor -Woverloaded-virtual
  -ffp-contract=off -fno-math-errno -fno-trapping-math)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees overlaps in std::string that are not there (GCC bug 105651).
  target_compile_options(varscope_flags INTERFACE -Wno-restrict)
endif()
if(VARSCOPE_WERROR)
  target_compile_options(varscope_flags INTERFACE -Werror)
endif()
if(VARSCOPE_SANITIZE)
  # Instrumented code confuses GCC's analysis of what is initialized.
  target_compile_options(varscope_flags INTERFACE -fsanitize=${VARSCOPE_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all -Wno-maybe-uninitialized
    # A tenth of the time to compile, for calls through wrong types, of which the address sanitizer sees nearly all.
    $<$<CXX_COMPILER_ID:GNU>:-fno-sanitize=vptr>
    $<$<BOOL:$<TARGET_PROPERTY:VARSCOPE_TEST_CODE>>:-fno-sanitize=undefined>)
  target_compile_definitions(varscope_flags INTERFACE VARSCOPE_SANITIZED=1 _GLIBCXX_ASSERTIONS=1)
  target_link_options(varscope_flags INTERFACE -fsanitize=${VARSCOPE_SANITIZE})
endif()
if(VARSCOPE_COVERAGE)
  target_compile_options(varscope_flags INTERFACE --coverage -O0)
  target_link_options(varscope_flags INTERFACE --coverage)
endif()

# varscope_add_library(NAME SOURCES ... LIBS ...): one library of the product, with root-relative includes.
function(varscope_add_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  add_library(varscope::${name} ALIAS ${name})
  target_include_directories(${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_link_libraries(${name} PUBLIC ${A_LIBS} PRIVATE $<BUILD_INTERFACE:varscope_flags>)
  if(VARSCOPE_SANITIZE)
    # These builds parse the same headers of the standard library again and again. With precompiled ones GCC 12 takes what is
    # inlined from them for ours, and warns of overlaps that are not there: other builds have none, and are the judge of
    # warnings. Each file still includes what it needs.
    target_compile_options(${name} PRIVATE -w $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
    target_precompile_headers(${name} PRIVATE <fmt/format.h> <algorithm> <array> <chrono> <filesystem> <functional> <map>
      <memory> <optional> <set> <span> <sstream> <string> <vector>)
  endif()
  set_property(GLOBAL APPEND PROPERTY VARSCOPE_LIBRARIES ${name})
endfunction()
