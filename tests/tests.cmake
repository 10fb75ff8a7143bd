# tests/<folder>/test_<module>.c is one cmocka executable, named after its path, linked with what its folder
# may use. Tests that need a GPU are labelled gpu, the others cpu.
if(NOT CMOCKA_FOUND)
  message(WARNING "cmocka was not found: no tests will be built")
  return()
endif()

# What tests share: writers of small files, printed diagnostics.
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/support/*.c)
list(FILTER sources EXCLUDE REGEX "/fake_")
add_library(qgc_test_support STATIC ${sources})
target_link_libraries(qgc_test_support PUBLIC qgc_base PkgConfig::CMOCKA m)

function(qgc_tests folder)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/test_*.c)
  foreach(source IN LISTS sources)
    get_filename_component(module ${source} NAME_WE)
    string(REPLACE "/" "_" prefix ${folder})
    string(REGEX REPLACE "^test_" "" module ${module})
    set(name ${prefix}_${module})
    add_executable(test_${name} ${source})
    target_link_libraries(test_${name} PRIVATE ${ARGN} qgc_test_support)
    target_compile_definitions(test_${name} PRIVATE QGC_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND test_${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    if(folder STREQUAL "gpu")
      set_tests_properties(${name} PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 RUN_SERIAL TRUE)
    else()
      set_tests_properties(${name} PROPERTIES LABELS cpu)
    endif()
  endforeach()
endfunction()

qgc_tests(graph/base qgc_base)
qgc_tests(models qgc_models)
add_executable(tokenize_file ${CMAKE_SOURCE_DIR}/tests/models/tokenize_file.c)
target_link_libraries(tokenize_file PRIVATE qgc_models)
qgc_tests(graph qgc_graph)
qgc_tests(passes qgc_passes)
# What a plug-in calls is in the executable that loads it; the test compiles some.
set_target_properties(test_passes_load PROPERTIES ENABLE_EXPORTS ON)
target_compile_definitions(test_passes_load PRIVATE QGC_CC="${CMAKE_C_COMPILER}")
qgc_tests(codegen qgc_codegen)
qgc_tests(runtime qgc_runtime)
# The command, as a user calls it.
qgc_tests(runtime/cli qgc_base)
add_dependencies(test_runtime_cli_passes qgc)
target_compile_definitions(test_runtime_cli_passes PRIVATE QGC_COMMAND="$<TARGET_FILE:qgc>")
# The runtime on a device and a weights file that are made up: these objects stand before the libraries.
target_sources(test_runtime_session_fake PRIVATE
  ${CMAKE_SOURCE_DIR}/tests/support/fake_device.c ${CMAKE_SOURCE_DIR}/tests/support/fake_weights_file.c)
target_link_libraries(test_runtime_device PRIVATE qgc_device)
add_executable(gpu_bench ${CMAKE_SOURCE_DIR}/tests/gpu/bench.c)
target_link_libraries(gpu_bench PRIVATE qgc_lab)
qgc_tests(runtime/lab qgc_lab)
qgc_tests(gpu qgc_lab)

# Fuzz targets: tests/fuzz/fuzz_<reader>.c, each one LLVMFuzzerTestOneInput.
if(QGC_FUZZ)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE qgc_models qgc_codegen)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endforeach()
endif()

# Run by hand: bench_<folder>_<module>.
add_executable(bench_graph_eval tests/graph/bench_eval.c)
target_link_libraries(bench_graph_eval PRIVATE qgc_graph)
# The files from which the fuzzers start, in tests/fuzz/corpus: written by `ninja seeds`, and committed.
if(QGC_FUZZ)
  add_executable(make_seeds EXCLUDE_FROM_ALL tests/fuzz/make_seeds.c)
  target_link_libraries(make_seeds PRIVATE qgc_test_support)
  add_custom_target(seeds COMMAND make_seeds ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus)
endif()
