# Every dependency comes from the system's packages; nothing is downloaded. Shared with the installed package, so that its
# users find the libraries where their system has them.
find_package(Threads REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(Boost REQUIRED COMPONENTS serialization)
find_package(yaml-cpp REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenBLAS REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(isal REQUIRED IMPORTED_TARGET libisal)
find_package(CLI11 REQUIRED)
find_package(simdjson REQUIRED)
find_package(prometheus-cpp REQUIRED COMPONENTS core)
find_package(Protobuf REQUIRED)
find_library(LEVELDB_LIBRARY leveldb REQUIRED)
find_path(LEVELDB_INCLUDE_DIR leveldb/table_builder.h REQUIRED)

# Imported, so that the installed package names them instead of paths of the machine it was built on.
if(NOT TARGET varscope_openblas)
  add_library(varscope_openblas INTERFACE IMPORTED)
  target_include_directories(varscope_openblas SYSTEM INTERFACE ${OpenBLAS_INCLUDE_DIRS})
  target_link_libraries(varscope_openblas INTERFACE ${OpenBLAS_LIBRARIES})
  # Debian's package for CMake would also link snappy's development files, which only a static LevelDB needs.
  add_library(varscope_leveldb INTERFACE IMPORTED)
  target_include_directories(varscope_leveldb SYSTEM INTERFACE ${LEVELDB_INCLUDE_DIR})
  target_link_libraries(varscope_leveldb INTERFACE ${LEVELDB_LIBRARY})
  # Debian ships yaml-cpp 0.7 with a bare target name.
  add_library(varscope_yaml INTERFACE IMPORTED)
  target_link_libraries(varscope_yaml INTERFACE yaml-cpp)
endif()
