# cmake -DOUT=kernels_embed.c -DFILES="a.cu;b.cuh" [-DHEADER=runtime/lab/view_files.h] -P codegen/embed.cmake
# Writes the bytes of each file into one C array. Without a header that is a table of (name, text) for
# codegen/kernel_sources.h, ended by NULL; with one, text "view.css" is the array qgc_view_css.
set(rows "")
set(arrays "")
foreach(path IN LISTS FILES)
  get_filename_component(name "${path}" NAME)
  string(MAKE_C_IDENTIFIER "${name}" id)
  file(READ "${path}" hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  if(HEADER)
    string(APPEND arrays "const char qgc_${id}[] = {${bytes}0};\n")
  else()
    string(APPEND arrays "static const char ${id}[] = {${bytes}0};\n")
    string(APPEND rows "    {\"${name}\", ${id}},\n")
  endif()
endforeach()
if(HEADER)
  file(WRITE "${OUT}" "#include \"${HEADER}\"\n\n${arrays}")
else()
  file(WRITE "${OUT}" "#include \"codegen/kernel_sources.h\"\n\n${arrays}\n"
    "const qgc_kernel_source qgc_kernel_sources[] = {\n${rows}    {0},\n};\n")
endif()
