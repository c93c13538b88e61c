# add_unit_test and add_mpi_test: one executable each, and its ctest entries.
include_guard()
find_package(GTest REQUIRED)

set(VARSCOPE_TEST_SUPPORT "${PROJECT_SOURCE_DIR}/tests/support")

# Ranks outnumber the cores of laptops and of CI: they must not be bound to one core (docs/performance.md).
set(VARSCOPE_TEST_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
  OMPI_MCA_btl_base_warn_component_unused=0 OPENBLAS_NUM_THREADS=1)
if(VARSCOPE_SANITIZE MATCHES "address")
  # Without slow unwinding, leaks that Open MPI makes below our calls have no library name to suppress them by.
  list(APPEND VARSCOPE_TEST_ENVIRONMENT ASAN_OPTIONS=fast_unwind_on_malloc=0
    "LSAN_OPTIONS=suppressions=${VARSCOPE_TEST_SUPPORT}/lsan.supp:print_suppressions=0")
endif()
if(VARSCOPE_SANITIZE MATCHES "undefined")
  list(APPEND VARSCOPE_TEST_ENVIRONMENT UBSAN_OPTIONS=print_stacktrace=1)
endif()
if(VARSCOPE_SANITIZE MATCHES "thread")
  # Open MPI, PMIx and OpenBLAS are not instrumented: what they do among themselves is not ours to judge.
  list(APPEND VARSCOPE_TEST_ENVIRONMENT
    "TSAN_OPTIONS=ignore_noninstrumented_modules=1:suppressions=${VARSCOPE_TEST_SUPPORT}/tsan.supp:print_suppressions=0")
endif()

# Target unit_and_mpi_tests builds the programs of the unit and mpi tests: what the sanitizers run.
if(NOT TARGET unit_and_mpi_tests)
  add_custom_target(unit_and_mpi_tests)
endif()

# A sanitizer makes code several times slower.
function(varscope_test_timeout seconds out)
  if(VARSCOPE_SANITIZE)
    math(EXPR seconds "${seconds} * 4")
  endif()
  set(${out} ${seconds} PARENT_SCOPE)
endfunction()

# The test suites of a source file as a GoogleTest filter, so that one program can have a ctest entry for each file.
function(varscope_filter_of file out)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(STRINGS ${file} lines REGEX "^(TEST|TEST_F|TEST_P|TYPED_TEST|VARSCOPE_SCOPE_CASES)\\(")
  set(patterns)
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^[A-Z_]+\\(([A-Za-z0-9]+),.*" "\\1" suite "${line}")
    list(APPEND patterns "${suite}.*")
    if(line MATCHES "^TYPED_TEST")
      list(APPEND patterns "${suite}/*.*")
    elseif(NOT line MATCHES "^TEST(_F)?\\(")
      list(APPEND patterns "*/${suite}.*")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES patterns)
  if(NOT patterns)
    message(FATAL_ERROR "${file} has no line that begins TEST(, TEST_F(, TEST_P( or TYPED_TEST(")
  endif()
  list(JOIN patterns ":" filter)
  set(${out} "${filter}" PARENT_SCOPE)
endfunction()

# What has one thread has no races: the thread sanitizer is given only tests that say that they start threads (THREADS below).
# In builds without sanitizers a test that does not say so fails when it starts one (tests/support/jobs/one_thread.cc).
if(NOT VARSCOPE_SANITIZE AND NOT TARGET varscope_one_thread)
  add_library(varscope_one_thread OBJECT ${VARSCOPE_TEST_SUPPORT}/jobs/one_thread.cc)
  target_link_libraries(varscope_one_thread PRIVATE varscope_flags)
endif()

# varscope_watch_threads(PROGRAM TEST ...): these tests of the program start no threads.
function(varscope_watch_threads program)
  if(NOT VARSCOPE_SANITIZE)
    target_link_libraries(${program} PRIVATE varscope_one_thread ${CMAKE_DL_LIBS})
    set_property(TEST ${ARGN} APPEND PROPERTY ENVIRONMENT VARSCOPE_TEST_ONE_THREAD=1)
  endif()
endfunction()

# add_unit_tests(PROGRAM FOLDER folder TESTS name ... [THREADS name ...] LIBS ... [TIMEOUT s]): one GoogleTest program of the
# files folder/name.cc, and for each of them a test NAME that runs its suites. THREADS: those of TESTS that start threads.
# PROGRAM.lists_every_test fails when a test of the program belongs to no file's suites, or to those of two files.
function(add_unit_tests program)
  cmake_parse_arguments(A "" "FOLDER;TIMEOUT" "TESTS;THREADS;LIBS" ${ARGN})
  if(VARSCOPE_SANITIZE MATCHES "thread")
    set(A_TESTS ${A_THREADS})
  endif()
  if(NOT A_TESTS)
    return()
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  varscope_test_timeout(${A_TIMEOUT} timeout)
  list(TRANSFORM A_TESTS REPLACE "(.+)" "${A_FOLDER}/\\1.cc" OUTPUT_VARIABLE sources)
  add_executable(${program} ${sources})
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${program} PRIVATE varscope_flags ${A_LIBS} GTest::gmock GTest::gtest_main)
  varscope_test_program(${program})
  add_dependencies(unit_and_mpi_tests ${program})
  set(filters)
  foreach(name IN LISTS A_TESTS)
    varscope_filter_of(${CMAKE_CURRENT_SOURCE_DIR}/${A_FOLDER}/${name}.cc filter)
    list(APPEND filters "${filter}")
    add_test(NAME ${name} COMMAND ${program} --gtest_filter=${filter})
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT ${timeout} ENVIRONMENT "${VARSCOPE_TEST_ENVIRONMENT}")
  endforeach()
  list(REMOVE_ITEM A_TESTS ${A_THREADS})
  if(A_TESTS)
    varscope_watch_threads(${program} ${A_TESTS})
  endif()
  add_test(NAME ${program}.lists_every_test
    COMMAND ${VARSCOPE_TEST_SUPPORT}/every_test_is_listed.sh $<TARGET_FILE:${program}> ${filters})
  set_tests_properties(${program}.lists_every_test PROPERTIES LABELS unit TIMEOUT 60
    ENVIRONMENT "${VARSCOPE_TEST_ENVIRONMENT}")
endfunction()

# Test code is compiled quickly rather than well: what it tests is compiled as it is used. Under sanitizers that takes two
# fifths of the time; property VARSCOPE_TEST_CODE leaves its own arithmetic unwatched (VarscopeTargets.cmake).
if(VARSCOPE_SANITIZE)
  set(VARSCOPE_TEST_OPTIMIZATION -O0)
else()
  set(VARSCOPE_TEST_OPTIMIZATION -O1)
endif()

function(varscope_test_options target)
  target_compile_options(${target} PRIVATE ${VARSCOPE_TEST_OPTIMIZATION} $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
  set_target_properties(${target} PROPERTIES VARSCOPE_TEST_CODE ON)
endfunction()

# What every file of a test program parses is precompiled once, for all of them. Each file still includes what it needs: a
# build with CMAKE_DISABLE_PRECOMPILE_HEADERS=ON (tools/check_tidy) fails otherwise.
function(varscope_test_program target)
  varscope_test_options(${target})
  target_precompile_headers(${target} REUSE_FROM varscope_test_headers)
endfunction()

# add_unit_test(NAME SOURCES ... LIBS ... [TIMEOUT s]): a GoogleTest program of one process and one thread.
function(add_unit_test name)
  if(VARSCOPE_SANITIZE MATCHES "thread")
    return()
  endif()
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  varscope_test_timeout(${A_TIMEOUT} timeout)
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE varscope_flags ${A_LIBS} GTest::gmock GTest::gtest_main)
  varscope_test_program(${name})
  add_dependencies(unit_and_mpi_tests ${name})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT ${timeout} ENVIRONMENT "${VARSCOPE_TEST_ENVIRONMENT}")
  varscope_watch_threads(${name} ${name})
endfunction()

# varscope_mpi_command(NP TARGET OUT [ARGS...]): the command line that runs a program on NP ranks.
function(varscope_mpi_command np target out)
  set(${out} ${MPIEXEC_EXECUTABLE} --quiet ${MPIEXEC_NUMPROC_FLAG} ${np} $<TARGET_FILE:${target}> ${ARGN} PARENT_SCOPE)
endfunction()

# add_mpi_test(NAME NP 1 2 3 5 SOURCES ... LIBS ... [TIMEOUT s]): one program and, for each number of ranks, a test
# NAME.np<ranks>. tests/support/jobs/mpi_main.cc is its main; see there for what failures, fatal ones and hangs do.
function(add_mpi_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "NP;SOURCES;LIBS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  varscope_test_timeout(${A_TIMEOUT} timeout)
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE varscope_flags ${A_LIBS} varscope_mpi_main GTest::gmock)
  varscope_test_program(${name})
  add_dependencies(unit_and_mpi_tests ${name})
  if(VARSCOPE_SANITIZE MATCHES "thread")
    # More ranks have no more threads, only longer waits.
    list(FILTER A_NP INCLUDE REGEX "^[12]$")
  endif()
  foreach(np IN LISTS A_NP)
    varscope_mpi_command(${np} ${name} command)
    add_test(NAME ${name}.np${np} COMMAND ${command})
    set_tests_properties(${name}.np${np} PROPERTIES LABELS mpi PROCESSORS ${np} TIMEOUT ${timeout}
      ENVIRONMENT "${VARSCOPE_TEST_ENVIRONMENT};VARSCOPE_TEST_TIMEOUT_S=${timeout}")
  endforeach()
endfunction()
