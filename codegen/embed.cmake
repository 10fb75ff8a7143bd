# cmake -DOUT=kernels_embed.c -DFILES="a.cu;b.cuh" -P codegen/embed.cmake
# Writes the bytes of each file into one C array, and a table of (name, text) that ends with NULL.
set(body "#include \"codegen/kernel_sources.h\"\n\n")
set(rows "")
foreach(path IN LISTS FILES)
  get_filename_component(name "${path}" NAME)
  string(MAKE_C_IDENTIFIER "${name}" id)
  file(READ "${path}" hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND body "static const char ${id}[] = {${bytes}0};\n")
  string(APPEND rows "    {\"${name}\", ${id}},\n")
endforeach()
file(WRITE "${OUT}" "${body}\nconst qgc_kernel_source qgc_kernel_sources[] = {\n${rows}    {0},\n};\n")
