# Installs the library, its headers, and what find_package(deepsim) and pkg-config read. An installation can be moved as a
# whole where CMAKE_INSTALL_LIBDIR and CMAKE_INSTALL_INCLUDEDIR are folders of the prefix, at any depth.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
foreach(folder LIBDIR INCLUDEDIR)
  if(CMAKE_INSTALL_${folder} MATCHES "(^|/)[.][.](/|$)")
    message(FATAL_ERROR "CMAKE_INSTALL_${folder}: ${CMAKE_INSTALL_${folder}}, expected a folder in the prefix or an absolute path.")
  endif()
endforeach()

# From an absolute folder, CMake's files and pkg-config's name the headers by the prefix of this configuration.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" AND NOT IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  install(CODE "
    if(NOT CMAKE_INSTALL_PREFIX STREQUAL [[${CMAKE_INSTALL_PREFIX}]])
      message(FATAL_ERROR \"prefix: \${CMAKE_INSTALL_PREFIX}, expected ${CMAKE_INSTALL_PREFIX}, which this build was \"
        \"configured for. Configure again with -DCMAKE_INSTALL_PREFIX=\${CMAKE_INSTALL_PREFIX}\")
    endif()")
endif()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/deepsim)
target_include_directories(deepsim PUBLIC $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS deepsim EXPORT deepsimTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY runtime/native/include/deepsim DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT deepsimTargets NAMESPACE deepsim:: DESTINATION ${package_folder})
configure_package_config_file(cmake/deepsimConfig.cmake.in deepsimConfig.cmake INSTALL_DESTINATION ${package_folder}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(deepsimConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/deepsimConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/deepsimConfigVersion.cmake
  DESTINATION ${package_folder})

# deepsim.pc names its folders from where it lies itself, unless they are absolute.
foreach(folder LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${folder}}")
    string(REPLACE " " "\\ " ${folder} "${CMAKE_INSTALL_${folder}}")
  else()
    set(${folder} "\${prefix}/${CMAKE_INSTALL_${folder}}")
  endif()
endforeach()
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  string(REPLACE " " "\\ " PREFIX "${CMAKE_INSTALL_PREFIX}")
else()
  file(RELATIVE_PATH up "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
  string(REGEX REPLACE "/$" "" PREFIX "\${pcfiledir}/${up}")
endif()
configure_file(cmake/deepsim.pc.in deepsim.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/deepsim.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
