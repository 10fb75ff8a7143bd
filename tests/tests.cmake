# tests/<folder>/test_<module>.c is one cmocka executable, named after its path, linked with what its folder
# may use. Tests that need a GPU are labelled gpu, the others cpu.
if(NOT CMOCKA_FOUND)
  message(WARNING "cmocka was not found: no tests will be built")
  return()
endif()

# What tests assert holds in release builds, too.
add_compile_options(-UNDEBUG)
# Undefined behaviour is looked for in what is tested: in the tests themselves that takes half of the time to compile them.
if(QGC_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:C>:-fno-sanitize=undefined>)
endif()

# What tests share: writers of small files, printed diagnostics.
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/support/*.c)
list(FILTER sources EXCLUDE REGEX "/(fake_|eval_double|random_model)")
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
# For tests/models/compare_tokenizer.py and compare_chat.py, by hand.
foreach(program IN ITEMS tokenize_file render_chat)
  add_executable(${program} ${CMAKE_SOURCE_DIR}/tests/models/${program}.c)
  target_link_libraries(${program} PRIVATE qgc_models)
endforeach()
qgc_tests(graph qgc_graph)
qgc_tests(passes qgc_passes)
# For tests/adding_an_op.sh and tests/models/compare_configs.py.
add_executable(print_values ${CMAKE_SOURCE_DIR}/tests/passes/print_values.c)
target_link_libraries(print_values PRIVATE qgc_passes)
# What a plug-in calls is in the executable that loads it; the test compiles some.
set_target_properties(test_passes_load PROPERTIES ENABLE_EXPORTS ON)
target_compile_definitions(test_passes_load PRIVATE QGC_CC="${CMAKE_C_COMPILER}")
# These use the graph, so they stand before the libraries.
target_sources(test_passes_semantics PRIVATE
  ${CMAKE_SOURCE_DIR}/tests/support/eval_double.c ${CMAKE_SOURCE_DIR}/tests/support/random_model.c)
if(QGC_SANITIZE)
  target_compile_definitions(test_passes_semantics PRIVATE ROUNDS=60)
  target_compile_definitions(test_passes_passes PRIVATE EVERY=5)
endif()
qgc_tests(codegen qgc_codegen)
target_compile_definitions(test_codegen_nvrtc PRIVATE QGC_CC="${CMAKE_C_COMPILER}")
foreach(test IN ITEMS access edges limits lower pinned persistent) # plans of whole pipelines
  target_link_libraries(test_codegen_${test} PRIVATE qgc_passes)
endforeach()
qgc_tests(runtime qgc_runtime)
# The command, as a user calls it.
qgc_tests(runtime/cli qgc_base)
target_link_libraries(test_runtime_cli_inspect PRIVATE qgc_codegen) # artifacts
target_link_libraries(test_runtime_cli_eval PRIVATE PkgConfig::JANSSON)
target_link_libraries(test_runtime_cli_schema PRIVATE qgc_graph) # the table of ops
foreach(test IN ITEMS one_op kernels chat options passes ablate search dumps bisect contain help view inspect odd_graphs odd_files run
    eval schema)
  add_dependencies(test_runtime_cli_${test} qgc)
  target_compile_definitions(test_runtime_cli_${test} PRIVATE
    QGC_COMMAND="$<TARGET_FILE:qgc>" QGC_CC="${CMAKE_C_COMPILER}")
endforeach()
target_compile_definitions(test_runtime_cli_chat PRIVATE QGC_HAS_LIBEDIT=$<BOOL:${LIBEDIT_FOUND}>)
# On a fake device and a fake weights file: these objects stand before the libraries.
foreach(test IN ITEMS session_fake stand_in image)
  target_sources(test_runtime_${test} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/fake_device.c)
endforeach()
foreach(test IN ITEMS runtime_session_fake models_bind models_form passes_bind_weights)
  target_sources(test_${test} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/fake_weights.c)
endforeach()
target_link_libraries(test_runtime_device PRIVATE qgc_device)
target_include_directories(test_runtime_cublas SYSTEM PRIVATE ${QGC_CUDA_INCLUDE})
qgc_tests(runtime/engine qgc_engine)
target_sources(test_runtime_engine_retarget PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/fake_device.c)
# A program that has the library, and nothing of qgc besides.
qgc_tests(runtime/lib qgc_base)
target_link_libraries(test_runtime_lib_qgc PRIVATE libqgc)
set_target_properties(test_runtime_lib_qgc PROPERTIES BUILD_WITH_INSTALL_RPATH OFF)
add_dependencies(test_runtime_lib_names qgc libqgc libqgc_static)
set(sanitize_flags "")
if(QGC_SANITIZE)
  set(sanitize_flags "-fsanitize=${QGC_SANITIZE}")
endif()
target_compile_definitions(test_runtime_lib_names PRIVATE QGC_CC="${CMAKE_C_COMPILER}"
  QGC_COMMAND="$<TARGET_FILE:qgc>" QGC_LIBRARY="$<TARGET_FILE:libqgc>" QGC_STATIC="${static_library}"
  QGC_LINK_FLAGS="${sanitize_flags}")
qgc_tests(runtime/lab qgc_lab)
set_target_properties(test_runtime_lab_vocabulary PROPERTIES ENABLE_EXPORTS ON)
target_compile_definitions(test_runtime_lab_vocabulary PRIVATE QGC_CC="${CMAKE_C_COMPILER}")
if(QGC_SANITIZE)
  target_compile_definitions(test_runtime_cli_kernels PRIVATE EVERY=4) # a wrong number, outside, before the wait
  target_compile_definitions(test_runtime_lab_planted PRIVATE EVERY=5)
endif()
foreach(test IN ITEMS trial_fake bisect_fake persistent_fake)
  target_sources(test_runtime_lab_${test} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/fake_device.c)
endforeach()
qgc_tests(gpu qgc_lab)

# What is installed and packaged, used from there.
if(NOT QGC_SANITIZE AND NOT QGC_FUZZ)
  add_test(NAME packaging_install COMMAND ${CMAKE_SOURCE_DIR}/packaging/test_install.sh ${CMAKE_BINARY_DIR})
  set_tests_properties(packaging_install PROPERTIES LABELS cpu)
endif()

# After those of kernels on the CPU: none of them may be the last one, beside which a processor idles.
foreach(test IN ITEMS codegen_limits codegen_access codegen_outside passes_semantics runtime_cli_kernels runtime_lab_planted)
  set_tests_properties(${test} PROPERTIES COST 200)
endforeach()

# Kernels on the CPU: kernels/cpu/on_cpu.h. They are C++, and the only ones here that are.
include(CheckLanguage)
check_language(CXX)
if(CMAKE_CXX_COMPILER)
  enable_language(CXX)
  add_library(on_cpu STATIC kernels/cpu/on_cpu.cc kernels/cpu/on_cpu_fibers.cc kernels/cpu/on_cpu_together.cc)
  target_include_directories(on_cpu PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_features(on_cpu PUBLIC cxx_std_17)
  target_compile_options(on_cpu PRIVATE -U_POSIX_C_SOURCE PUBLIC $<$<CXX_COMPILER_ID:Clang>:-Wno-keyword-macro>)
  add_executable(test_kernels_sample tests/kernels/test_sample.c)
  file(STRINGS tests/kernels/sample_variants.h variants REGEX "^VARIANT")
  foreach(variant IN LISTS variants)
    string(REGEX MATCH "([0-9]+), ([0-9]+), ([0-9]+)" numbers "${variant}")
    set(name sample_${CMAKE_MATCH_1}_${CMAKE_MATCH_2}_${CMAKE_MATCH_3})
    add_library(${name} OBJECT tests/kernels/sample_on_cpu.cc)
    target_link_libraries(${name} PRIVATE on_cpu)
    target_compile_options(${name} PRIVATE -O2 -ffp-contract=off -w) # NVRTC warns about kernels
    target_compile_definitions(${name} PRIVATE RUN=${name} VOCAB=${CMAKE_MATCH_1} THREADS=${CMAKE_MATCH_2}
      CHUNK=${CMAKE_MATCH_3} RING=16)
    target_sources(test_kernels_sample PRIVATE $<TARGET_OBJECTS:${name}>)
  endforeach()
  foreach(block IN ITEMS 0 1 2)
    add_library(sample_block_${block} OBJECT tests/kernels/sample_block_on_cpu.cc)
    target_link_libraries(sample_block_${block} PRIVATE on_cpu)
    target_compile_options(sample_block_${block} PRIVATE -O2 -ffp-contract=off -w)
    target_compile_definitions(sample_block_${block} PRIVATE BLOCK=${block} VOCAB=2003 THREADS=64 SLICE=300 RING=16)
    target_sources(test_kernels_sample PRIVATE $<TARGET_OBJECTS:sample_block_${block}>)
  endforeach()
  if(QGC_SANITIZE)
    target_compile_definitions(test_kernels_sample PRIVATE ROUNDS=28)
  endif()
  target_link_libraries(test_kernels_sample PRIVATE on_cpu qgc_graph qgc_test_support)
  add_test(NAME kernels_sample COMMAND test_kernels_sample WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(kernels_sample PROPERTIES LABELS cpu)

  add_executable(test_kernels_attention tests/kernels/test_attention.c)
  file(STRINGS tests/kernels/attention_variants.h variants REGEX "^VARIANT")
  foreach(variant IN LISTS variants)
    string(REGEX MATCH "([0-9]+), ([0-9]+), ([0-9]+), ([0-9]+), ([0-9]+), ([0-9]+), ([0-9]+)" numbers "${variant}")
    set(name attention_${CMAKE_MATCH_1}_${CMAKE_MATCH_2}_${CMAKE_MATCH_3}_${CMAKE_MATCH_4}_${CMAKE_MATCH_5}_${CMAKE_MATCH_6}_${CMAKE_MATCH_7})
    add_library(${name} OBJECT tests/kernels/attention_on_cpu.cc)
    target_link_libraries(${name} PRIVATE on_cpu)
    target_compile_options(${name} PRIVATE -O2 -ffp-contract=off -w)
    target_compile_definitions(${name} PRIVATE RUN=${name} HEAD_DIM=${CMAKE_MATCH_1} HEADS=${CMAKE_MATCH_2}
      KV_HEADS=${CMAKE_MATCH_3} PARTS=${CMAKE_MATCH_4} BLOCKS=${CMAKE_MATCH_5}
      WINDOW=${CMAKE_MATCH_6} CAP=${CMAKE_MATCH_7})
    target_sources(test_kernels_attention PRIVATE $<TARGET_OBJECTS:${name}>)
  endforeach()
  target_link_libraries(test_kernels_attention PRIVATE on_cpu qgc_test_support)
  add_test(NAME kernels_attention COMMAND test_kernels_attention WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(kernels_attention PROPERTIES LABELS cpu)

  add_executable(test_kernels_ptx tests/kernels/test_ptx.c tests/kernels/ptx_on_cpu.cc)
  set_source_files_properties(tests/kernels/ptx_on_cpu.cc PROPERTIES COMPILE_OPTIONS "-ffp-contract=off;-w")
  target_link_libraries(test_kernels_ptx PRIVATE on_cpu qgc_base qgc_test_support)
  add_test(NAME kernels_ptx COMMAND test_kernels_ptx WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(kernels_ptx PROPERTIES LABELS cpu)

  add_executable(test_kernels_exchange tests/kernels/test_exchange.c tests/kernels/exchange_on_cpu.cc)
  set_source_files_properties(tests/kernels/exchange_on_cpu.cc PROPERTIES COMPILE_OPTIONS "-O2;-ffp-contract=off;-w")
  target_link_libraries(test_kernels_exchange PRIVATE on_cpu qgc_base qgc_test_support m)
  if(QGC_SANITIZE)
    target_compile_definitions(test_kernels_exchange PRIVATE SCHEDULES=40)
  endif()
  add_test(NAME kernels_exchange COMMAND test_kernels_exchange WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(kernels_exchange PROPERTIES LABELS cpu COST 200)

  add_executable(test_kernels_score tests/kernels/test_score.c tests/kernels/score_on_cpu.cc)
  set_source_files_properties(tests/kernels/score_on_cpu.cc PROPERTIES COMPILE_OPTIONS "-O2;-ffp-contract=off;-w")
  target_link_libraries(test_kernels_score PRIVATE on_cpu qgc_engine qgc_test_support)
  add_test(NAME kernels_score COMMAND test_kernels_score WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(kernels_score PROPERTIES LABELS cpu)

  # Whole plans, whose kernels the test compiles when it runs.
  add_library(replay STATIC tests/kernels/replay.c tests/kernels/cpu_kernels.c tests/support/fake_device.c)
  target_compile_definitions(replay PRIVATE QGC_CXX="${CMAKE_CXX_COMPILER}"
    QGC_SOURCE_DIR="${CMAKE_SOURCE_DIR}" QGC_CPU_KERNELS="${CMAKE_BINARY_DIR}/cpu_kernels")
  target_link_libraries(replay PUBLIC qgc_lab on_cpu qgc_test_support)
  add_executable(test_kernels_quantised tests/kernels/test_quantised.c tests/kernels/quantised_on_cpu.cc)
  set_source_files_properties(tests/kernels/quantised_on_cpu.cc PROPERTIES COMPILE_OPTIONS "-O2;-ffp-contract=off;-w")
  foreach(name replay replay_ops replay_outside packed evaluate)
    add_executable(test_kernels_${name} tests/kernels/test_${name}.c)
  endforeach()
  target_sources(test_kernels_evaluate PRIVATE tests/kernels/fake_nvrtc.c)
  target_compile_definitions(test_kernels_evaluate PRIVATE QGC_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  # Kernels too, but for arrays of arrays that they go through as one, and null + n. Most of the time is that of the compiler: -O0.
  if(QGC_SANITIZE)
    target_compile_definitions(replay PRIVATE
      CPU_KERNELS_FLAGS="-fsanitize=${QGC_SANITIZE} -fno-sanitize=bounds,pointer-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer -O0")
    target_compile_definitions(test_kernels_replay PRIVATE SUBSETS=1 ARCHS=1 PLANTED=0 RINGS=2 OLDEST=1 ORDERS=2)
    target_compile_definitions(test_kernels_replay_ops PRIVATE SUBSETS=1 ARCHS=1)
    target_compile_definitions(test_kernels_replay_outside PRIVATE EVERY=3)
    target_compile_definitions(test_kernels_evaluate PRIVATE MODES=1)
    target_compile_definitions(test_kernels_quantised PRIVATE MIXES=1 PERSISTENT_MIXES=1 OLDEST_MIXES=1)
  endif()
  foreach(name quantised replay replay_ops replay_outside packed evaluate)
    set_target_properties(test_kernels_${name} PROPERTIES ENABLE_EXPORTS ON)
    target_link_libraries(test_kernels_${name} PRIVATE replay)
    add_test(NAME kernels_${name} COMMAND test_kernels_${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(kernels_${name} PROPERTIES LABELS cpu COST 300) # those that take longest begin first
  endforeach()
else()
  message(STATUS "no C++ compiler: the kernels are not tested on the CPU")
endif()

# Fuzz targets: tests/fuzz/fuzz_<reader>.c, each one LLVMFuzzerTestOneInput.
if(QGC_FUZZ)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE qgc_models qgc_codegen)
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endforeach()
endif()

# Run by hand: bench_<folder>_<module>.
add_executable(bench_graph_eval tests/graph/bench_eval.c)
target_link_libraries(bench_graph_eval PRIVATE qgc_graph)
# The files from which the fuzzers start, in tests/fuzz/corpus: written by `ninja seeds`, and committed.
if(QGC_FUZZ)
  add_executable(make_seeds EXCLUDE_FROM_ALL tests/fuzz/make_seeds.c)
  target_link_libraries(make_seeds PRIVATE qgc_codegen qgc_test_support)
  add_custom_target(seeds COMMAND make_seeds ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus)
endif()
