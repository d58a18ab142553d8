# caw_module(NAME [DEPS module...] [LIBS target...])
#
# Declares src/NAME as the static library caw_NAME, made of its *.cc files; *_test.cc become the
# test program NAME_test (registered with CTest, one case per TEST).  DEPS may name only modules
# declared before.  A folder without sources is a header-only module.

set(CAW_MODULES "" CACHE INTERNAL "modules declared so far")

option(CAW_WERROR "treat warnings as errors" OFF)
set(CAW_CHECKS "" CACHE STRING "expensive: costly self-checks (CAW_EXPENSIVE_CHECKS is defined)")
set(CAW_SANITIZE "" CACHE STRING "address,undefined or thread")
option(CAW_FUZZ "libFuzzer drives the programs of tests/fuzz (clang)" OFF)
option(CAW_COVERAGE "count which lines run (clang)" OFF)

add_library(caw_options INTERFACE)
target_compile_options(caw_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
    -Wold-style-cast -Wnon-virtual-dtor -Woverloaded-virtual>
  $<$<BOOL:${CAW_WERROR}>:-Werror>)
target_compile_definitions(caw_options INTERFACE _GLIBCXX_ASSERTIONS FUSE_USE_VERSION=314
  _FILE_OFFSET_BITS=64)
if(CAW_CHECKS STREQUAL "expensive")
  target_compile_definitions(caw_options INTERFACE CAW_EXPENSIVE_CHECKS)
endif()
target_include_directories(caw_options INTERFACE ${CMAKE_SOURCE_DIR}/src
  ${CMAKE_SOURCE_DIR}/include)
if(CAW_SANITIZE)
  target_compile_options(caw_options INTERFACE -fsanitize=${CAW_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(caw_options INTERFACE -fsanitize=${CAW_SANITIZE})
endif()
if(CAW_FUZZ)
  target_compile_options(caw_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(CAW_COVERAGE)
  target_compile_options(caw_options INTERFACE -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(caw_options INTERFACE -fprofile-instr-generate)
endif()

function(caw_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  foreach(dep IN LISTS ARG_DEPS)
    if(NOT dep IN_LIST CAW_MODULES)
      message(FATAL_ERROR "module ${name}: depends on ${dep}, which is not below it")
    endif()
  endforeach()
  set(CAW_MODULES ${CAW_MODULES} ${name} CACHE INTERNAL "modules declared so far")

  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "(_test|_fuzz|_bench|main)\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(TRANSFORM ARG_DEPS PREPEND caw_)
  if(sources)
    add_library(caw_${name} STATIC ${sources})
    target_link_libraries(caw_${name} PUBLIC caw_options ${ARG_DEPS} ${ARG_LIBS})
  else()
    add_library(caw_${name} INTERFACE)
    target_link_libraries(caw_${name} INTERFACE caw_options ${ARG_DEPS} ${ARG_LIBS})
  endif()
  if(BUILD_TESTING AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE caw_${name} GTest::gtest GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES LABELS unit)
  endif()
endfunction()
