# What `cmake --install` puts where: the command, both libraries with header, pkg-config and CMake files, the headers for passes,
# graphs, manual pages, completions and documentation.
include(CMakePackageConfigHelpers)

install(TARGETS qgc RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS libqgc EXPORT qgc LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  NAMELINK_COMPONENT Development)
install(FILES ${static_library} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/qgc.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/qgc)
install(EXPORT qgc NAMESPACE qgc:: FILE qgc-targets.cmake DESTINATION ${cmake_folder})
configure_package_config_file(packaging/qgc-config.cmake.in ${CMAKE_BINARY_DIR}/qgc-config.cmake
  INSTALL_DESTINATION ${cmake_folder} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/qgc-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/qgc-config.cmake ${CMAKE_BINARY_DIR}/qgc-config-version.cmake
  DESTINATION ${cmake_folder})
configure_file(packaging/qgc.pc.in ${CMAKE_BINARY_DIR}/qgc.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/qgc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
