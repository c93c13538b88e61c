# `cmake --install`: the program with its launchers and configs, the libraries with their headers, and a package for
# find_package(varscope).
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/varscope)
get_property(libraries GLOBAL PROPERTY VARSCOPE_LIBRARIES)
install(TARGETS ${libraries} EXPORT varscope_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT varscope_targets NAMESPACE varscope:: FILE varscope-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/varscope-config.cmake.in varscope-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(varscope-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/varscope-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/varscope-config-version.cmake
  cmake/VarscopeDependencies.cmake DESTINATION ${package_dir})
foreach(folder common checkpoint ps worker launch)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/varscope FILES_MATCHING PATTERN "*.h")
endforeach()
install(PROGRAMS launch/run_local.sh launch/run_hostfile.sh launch/get_data.sh
  DESTINATION ${CMAKE_INSTALL_DATADIR}/varscope/launch)
install(FILES launch/mpirun_support.sh launch/varscope.sbatch DESTINATION ${CMAKE_INSTALL_DATADIR}/varscope/launch)
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/varscope FILES_MATCHING PATTERN "*.yaml")
