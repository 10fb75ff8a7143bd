# What `cmake --install` puts where: the command, both libraries with header, pkg-config and CMake files, the headers for passes,
# graphs, manual pages, completions and documentation. CPack makes a Debian package of the same.
include(CMakePackageConfigHelpers)

install(TARGETS qgc RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS libqgc EXPORT qgc LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${static_library} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/qgc.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# For cmake and pkg-config. What is installed may be moved as a whole.
set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/qgc)
set(pc_folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(EXPORT qgc NAMESPACE qgc:: FILE qgc-targets.cmake DESTINATION ${cmake_folder})
configure_package_config_file(packaging/qgc-config.cmake.in ${CMAKE_BINARY_DIR}/qgc-config.cmake
  INSTALL_DESTINATION ${cmake_folder} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/qgc-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/qgc-config.cmake ${CMAKE_BINARY_DIR}/qgc-config-version.cmake
  DESTINATION ${cmake_folder})
file(RELATIVE_PATH pc_up /x/${pc_folder} /x)
string(REGEX REPLACE "/$" "" pc_up "${pc_up}")
foreach(name IN ITEMS qgc qgc-passes)
  configure_file(packaging/${name}.pc.in ${CMAKE_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${name}.pc DESTINATION ${pc_folder})
endforeach()

# What a plug-in with passes includes (docs/adding_a_pass.md), in the folders that it names.
install(DIRECTORY graph passes codegen/stage DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/qgc
  FILES_MATCHING PATTERN "*.h" PATTERN "*.def" PATTERN "*_impl.h" EXCLUDE)

install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/qgc/models
  FILES_MATCHING PATTERN "*.yaml" PATTERN "tiny.gguf" PATTERN "safetensors" EXCLUDE)

# Manual pages and completions, written by the command itself.
set(manual ${CMAKE_BINARY_DIR}/manual)
add_custom_command(OUTPUT ${manual}/done
  COMMAND ${CMAKE_COMMAND} -DQGC=$<TARGET_FILE:qgc> -DOUT=${manual} -P ${CMAKE_SOURCE_DIR}/packaging/manual.cmake
  DEPENDS qgc ${CMAKE_SOURCE_DIR}/packaging/manual.cmake VERBATIM)
add_custom_target(qgc_manual ALL DEPENDS ${manual}/done)
install(DIRECTORY ${manual}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
install(FILES ${manual}/bash RENAME qgc DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${manual}/zsh RENAME _qgc DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${manual}/fish RENAME qgc.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

file(GLOB documents docs/*.md)
install(FILES README.md CHANGELOG.md ${documents} DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES packaging/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
add_custom_command(OUTPUT ${manual}/changelog.gz
  COMMAND sh -c "gzip -9nc '${CMAKE_SOURCE_DIR}/packaging/changelog' >'${manual}/changelog.gz'"
  DEPENDS packaging/changelog ${manual}/done VERBATIM)
add_custom_target(qgc_changelog ALL DEPENDS ${manual}/changelog.gz)
install(FILES ${manual}/changelog.gz DESTINATION ${CMAKE_INSTALL_DOCDIR})

# cpack -G DEB
set(CPACK_PACKAGE_NAME qgc)
set(CPACK_PACKAGE_VENDOR "qgc maintainers")
set(CPACK_PACKAGE_CONTACT "qgc maintainers <maintainers@qgc.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "compiler from op graphs of language models to CUDA kernels")
set(CPACK_PACKAGE_DESCRIPTION "qgc compiles the op graph of a language model, written in YAML, to
CUDA kernels, and runs them token by token. Fusions are named passes that
can be left out, moved or written anew. Where there is no GPU it runs the
same graph on the CPU.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
  WORLD_READ WORLD_EXECUTE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/packaging/triggers)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "nvidia-cuda-toolkit, python3-pip")
set(CPACK_GENERATOR DEB)
include(CPack)
