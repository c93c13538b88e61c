# `cmake --install`: the program with its launchers, configs, man page and completion; the libraries with their public
# headers, and a package for find_package(varscope); documentation and examples.
include(CMakePackageConfigHelpers)

# --- the libraries: varscope::varscope is all of them ------------------------------------------------------------------
get_property(libraries GLOBAL PROPERTY VARSCOPE_LIBRARIES)
add_library(varscope_all INTERFACE)
target_link_libraries(varscope_all INTERFACE ${libraries})
target_include_directories(varscope_all INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
set_target_properties(varscope_all PROPERTIES EXPORT_NAME varscope)
add_library(varscope::varscope ALIAS varscope_all)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/varscope)
install(TARGETS varscope_all ${libraries} EXPORT varscope_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT varscope_targets NAMESPACE varscope:: FILE varscope-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/varscope-config.cmake.in varscope-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(varscope-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/varscope-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/varscope-config-version.cmake
  cmake/VarscopeDependencies.cmake DESTINATION ${package_dir})

# Public headers, and what they include.
install(CODE "
  set(source_dir [[${PROJECT_SOURCE_DIR}]])
  set(staging_dir [[${PROJECT_BINARY_DIR}/installed_headers]])
  set(include_dir \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}\")")
install(SCRIPT cmake/InstallHeaders.cmake)

# --- the program -----------------------------------------------------------------------------------------------------
set(data_dir ${CMAKE_INSTALL_DATADIR}/varscope)
install(PROGRAMS launch/run_local.sh launch/run_hostfile.sh launch/get_data.sh DESTINATION ${data_dir}/launch)
install(FILES launch/mpirun_support.sh launch/varscope.sbatch launch/haproxy.cfg launch/varscope-serve.service DESTINATION ${data_dir}/launch)
install(DIRECTORY configs DESTINATION ${data_dir} FILES_MATCHING PATTERN "*.yaml")

# What the program prints of itself, when it is built for use.
if(NOT VARSCOPE_SANITIZE AND NOT VARSCOPE_COVERAGE)
  set(generated ${PROJECT_BINARY_DIR}/share)
  file(MAKE_DIRECTORY ${generated})
  add_custom_command(OUTPUT ${generated}/completion.bash ${generated}/completion.zsh
    COMMAND varscope completion bash > ${generated}/completion.bash
    COMMAND varscope completion zsh > ${generated}/completion.zsh
    DEPENDS varscope VERBATIM)
  add_custom_target(varscope_completion ALL DEPENDS ${generated}/completion.bash ${generated}/completion.zsh)
  install(FILES ${generated}/completion.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME varscope)
  install(FILES ${generated}/completion.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _varscope)

  find_program(HELP2MAN_PROGRAM help2man)
  if(HELP2MAN_PROGRAM)
    set(man_words ${PROJECT_SOURCE_DIR}/docs/man/varscope.h2m)
    add_custom_command(OUTPUT ${generated}/varscope.1
      COMMAND ${PROJECT_SOURCE_DIR}/tools/make_man $<TARGET_FILE:varscope> ${generated}/varscope.1
      DEPENDS varscope ${PROJECT_SOURCE_DIR}/tools/make_man ${man_words} VERBATIM)
    add_custom_target(varscope_man ALL DEPENDS ${generated}/varscope.1)
    install(FILES ${generated}/varscope.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  else()
    message(STATUS "help2man is not installed: no man page (apt-get install help2man)")
  endif()
endif()

# --- documentation and examples: links between the pages hold as in the sources ----------------------------------------
set(doc_dir ${CMAKE_INSTALL_DATADIR}/doc/varscope)
set(example_dir ${data_dir}/examples)
install(FILES README.md LICENSE CHANGELOG.md CITATION.cff CONTRIBUTING.md SECURITY.md DESTINATION ${doc_dir})
install(DIRECTORY docs DESTINATION ${doc_dir} FILES_MATCHING PATTERN "*.md" PATTERN "*.svg" PATTERN "*.png"
  PATTERN examples EXCLUDE PATTERN man EXCLUDE PATTERN api EXCLUDE)
install(DIRECTORY docs/examples/ DESTINATION ${example_dir})
file(RELATIVE_PATH doc_to_examples /${doc_dir}/docs /${example_dir})
install(CODE "
  set(link \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${doc_dir}/docs/examples\")
  file(CREATE_LINK [[${doc_to_examples}]] \"\${link}\" SYMBOLIC)")
