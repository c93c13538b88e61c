# `cmake --install`: the program, the libraries with their headers, and a package for find_package(varscope).
include(CMakePackageConfigHelpers)
get_property(libraries GLOBAL PROPERTY VARSCOPE_LIBRARIES)
install(TARGETS ${libraries} varscope_openblas varscope_yaml EXPORT varscope_targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT varscope_targets NAMESPACE varscope:: FILE varscope-targets.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/varscope)
configure_package_config_file(cmake/varscope-config.cmake.in varscope-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/varscope)
write_basic_package_version_file(varscope-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/varscope-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/varscope-config-version.cmake
  cmake/VarscopeDependencies.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/varscope)
foreach(folder common checkpoint ps worker)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/varscope FILES_MATCHING PATTERN "*.h")
endforeach()
