# add_unit_test and add_mpi_test: one executable each, and its ctest entries.
include_guard()
find_package(GTest REQUIRED)

set(VARSCOPE_TEST_SUPPORT "${PROJECT_SOURCE_DIR}/tests/support")

# Ranks outnumber the cores of laptops and of CI: they must neither be bound to one core nor spin (docs/performance.md).
set(VARSCOPE_TEST_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
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
  list(APPEND VARSCOPE_TEST_ENVIRONMENT TSAN_OPTIONS=ignore_noninstrumented_modules=1)
endif()

# A sanitizer makes code several times slower.
function(varscope_test_timeout seconds out)
  if(VARSCOPE_SANITIZE)
    math(EXPR seconds "${seconds} * 4")
  endif()
  set(${out} ${seconds} PARENT_SCOPE)
endfunction()

# add_unit_test(NAME SOURCES ... LIBS ... [TIMEOUT s]): a GoogleTest program of one process.
function(add_unit_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  varscope_test_timeout(${A_TIMEOUT} timeout)
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE varscope_flags ${A_LIBS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT ${timeout} ENVIRONMENT "${VARSCOPE_TEST_ENVIRONMENT}")
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
  target_link_libraries(${name} PRIVATE varscope_flags ${A_LIBS} varscope_mpi_main)
  foreach(np IN LISTS A_NP)
    varscope_mpi_command(${np} ${name} command)
    add_test(NAME ${name}.np${np} COMMAND ${command})
    set_tests_properties(${name}.np${np} PROPERTIES LABELS mpi PROCESSORS ${np} TIMEOUT ${timeout}
      ENVIRONMENT "${VARSCOPE_TEST_ENVIRONMENT};VARSCOPE_TEST_TIMEOUT_S=${timeout}")
  endforeach()
endfunction()
