# cmake -DOUT=version.c -DVERSION=0.1.0 -DSOURCE=DIR -P version.cmake
# Writes the texts of graph/base/version.h, and leaves the file alone where nothing has changed.
set(commit "")
find_program(git git)
if(git AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${git} -C ${SOURCE} describe --always --abbrev=12 --dirty=+ --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(text "${VERSION}")
if(commit)
  set(text "${VERSION} (${commit})")
endif()
set(body "#include \"graph/base/version.h\"\n
const char qgc_version_number[] = \"${VERSION}\";
const char qgc_version_text[] = \"${text}\";\n")
set(old "")
if(EXISTS ${OUT})
  file(READ ${OUT} old)
endif()
if(NOT old STREQUAL body)
  file(WRITE ${OUT} "${body}")
endif()
