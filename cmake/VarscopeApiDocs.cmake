# Target `docs`: the API pages, by Doxygen, of the headers as they are installed, in <build folder>/docs/html. A warning fails it.
find_package(Doxygen QUIET)
if(NOT DOXYGEN_FOUND)
  add_custom_target(docs COMMAND ${CMAKE_COMMAND} -E echo "docs: needs Doxygen (apt-get install doxygen)"
    COMMAND ${CMAKE_COMMAND} -E false)
  return()
endif()
set(staging ${PROJECT_BINARY_DIR}/docs/headers)
set(VARSCOPE_API_INPUT ${PROJECT_BINARY_DIR}/docs/include)
configure_file(docs/api/Doxyfile.in ${PROJECT_BINARY_DIR}/docs/Doxyfile @ONLY)
add_custom_target(docs
  COMMAND ${CMAKE_COMMAND} -Dsource_dir=${PROJECT_SOURCE_DIR} -Dstaging_dir=${staging}
    -Dinclude_dir=${VARSCOPE_API_INPUT} -P ${PROJECT_SOURCE_DIR}/cmake/InstallHeaders.cmake
  COMMAND ${DOXYGEN_EXECUTABLE} ${PROJECT_BINARY_DIR}/docs/Doxyfile
  COMMAND ${CMAKE_COMMAND} -E echo "API pages: ${PROJECT_BINARY_DIR}/docs/html/index.html"
  VERBATIM)
