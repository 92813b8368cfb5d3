# Compiles the CUDA kernels, once each for fp16, bfloat16 and fp32, and embeds them into the library. Nothing of CUDA is
# linked: the driver is opened at run time.
#   DEEPSIM_CUDA=AUTO      where nvcc is found (default); ON: it must be; OFF: leave the kernels out
#   DEEPSIM_CUDA=EMULATED  for tests: the kernels run in what stands in for the driver
set(DEEPSIM_CUDA AUTO CACHE STRING "CUDA kernels: AUTO, ON, OFF or EMULATED")
set(DEEPSIM_CUDA_ARCHITECTURES "" CACHE STRING "Compute capabilities of the kernels, 75 or more; empty: all that nvcc knows of")

if(NOT DEEPSIM_CUDA MATCHES "^(AUTO|ON|OFF|EMULATED)$")
  message(FATAL_ERROR "DEEPSIM_CUDA: ${DEEPSIM_CUDA}, expected AUTO, ON, OFF or EMULATED.")
endif()
foreach(architecture IN LISTS DEEPSIM_CUDA_ARCHITECTURES)
  if(NOT architecture MATCHES "^[0-9]+$" OR architecture LESS 75)
    message(FATAL_ERROR "DEEPSIM_CUDA_ARCHITECTURES: ${architecture}, expected numbers of 75 or more, such as 80;90.")
  endif()
endforeach()
find_program(DEEPSIM_NVCC nvcc)
if(DEEPSIM_CUDA STREQUAL "ON" AND NOT DEEPSIM_NVCC)
  message(FATAL_ERROR "nvcc: not found, expected a CUDA toolkit. Put it on PATH, or configure with -DDEEPSIM_CUDA=OFF.")
endif()
if(DEEPSIM_CUDA STREQUAL "EMULATED")
  target_compile_definitions(deepsim_engine PRIVATE DEEPSIM_CUDA_EMULATED
    DEEPSIM_CUDA_ARCHITECTURES="emulated" DEEPSIM_CUDA_TOOLKIT=13)
elseif(DEEPSIM_CUDA STREQUAL "OFF" OR NOT DEEPSIM_NVCC)
  message(STATUS "deepsim: CUDA kernels are left out (no nvcc, or DEEPSIM_CUDA=OFF); the backend cuda will say so")
else()
  enable_language(ASM)
  # fatbinary is nvcc's neighbour, also where the nvcc on PATH is a script that calls it.
  execute_process(COMMAND ${DEEPSIM_NVCC} --dryrun -x cu -E /dev/null ERROR_VARIABLE steps OUTPUT_QUIET)
  string(REGEX MATCH "_HERE_=([^\n]*)" here "${steps}")
  get_filename_component(beside ${DEEPSIM_NVCC} DIRECTORY)
  find_program(DEEPSIM_FATBINARY fatbinary HINTS ${CMAKE_MATCH_1} ${beside})
  if(NOT DEEPSIM_FATBINARY)
    message(FATAL_ERROR "fatbinary: not found beside ${DEEPSIM_NVCC}, expected a whole CUDA toolkit. Configure with -DDEEPSIM_CUDA=OFF to leave the kernels out.")
  endif()
  execute_process(COMMAND ${DEEPSIM_NVCC} --version OUTPUT_VARIABLE version)
  string(REGEX MATCH "release ([0-9]+)" release "${version}")
  set(toolkit ${CMAKE_MATCH_1})
  set(architectures ${DEEPSIM_CUDA_ARCHITECTURES})
  if(NOT architectures)
    execute_process(COMMAND ${DEEPSIM_NVCC} --list-gpu-code OUTPUT_VARIABLE known)
    foreach(architecture 75 80 86 89 90 100 120)
      if(known MATCHES "sm_${architecture}(\n|$)")
        list(APPEND architectures ${architecture})
      else()
        message(STATUS "deepsim: no CUDA kernels for sm_${architecture}, which this nvcc does not know")
      endif()
    endforeach()
  endif()
  set(sources ${CMAKE_CURRENT_SOURCE_DIR}/kernels/cuda)
  set(images ${CMAKE_CURRENT_BINARY_DIR}/cuda)
  file(MAKE_DIRECTORY ${images})
  file(GLOB headers CONFIGURE_DEPENDS ${sources}/*.h)
  add_custom_target(deepsim_cuda_kernels)  # what tests look at: an element's machine code for one architecture
  # Compiles `output` by nvcc with these options. What it and ptxas say lies beside it; of that, warnings are shown.
  function(deepsim_compile_kernels output element)
    add_custom_command(
      OUTPUT ${output}
      COMMAND sh -c "\"$@\" >\"$0\" 2>&1 || { cat \"$0\" >&2; exit 1; }; grep warning \"$0\" >&2 || true" ${output}.txt
              ${DEEPSIM_NVCC} -std=c++17 -O3 -DDEEPSIM_ELEMENT=${element} ${ARGN} -o ${output} ${sources}/kernels.cu
      DEPENDS ${sources}/kernels.cu ${headers}
      COMMENT "Compiling the CUDA kernels: ${output}"
      VERBATIM)
  endfunction()
  function(deepsim_add_cuda_kernels element oldest)
    set(files)
    set(parts)
    foreach(architecture IN LISTS architectures)
      if(architecture GREATER_EQUAL oldest)
        # 9.0 is one kind of GPU, Hopper, and all of them are 9.0a: that alone has the instructions of shift_gemm_hopper.h.
        string(REGEX REPLACE "^90$" "90a" target ${architecture})
        set(cubin ${images}/${element}-sm_${target}.cubin)
        deepsim_compile_kernels(${cubin} ${element} -gencode=arch=compute_${target},code=sm_${target} -Xptxas -v --cubin)
        list(APPEND files ${cubin})
        list(APPEND parts "--image3=kind=elf,sm=${target},file=${cubin}")
      endif()
    endforeach()
    # As PTX too: every GPU from 8.0 on can have its machine code made from this one, also those that come after.
    set(ptx ${images}/${element}-compute_80.ptx)
    deepsim_compile_kernels(${ptx} ${element} -arch=compute_80 --ptx)
    add_custom_target(deepsim_cuda_kernels_${element} DEPENDS ${files} ${ptx})
    add_dependencies(deepsim_cuda_kernels deepsim_cuda_kernels_${element})
    add_custom_command(
      OUTPUT ${images}/${element}.fatbin
      COMMAND ${DEEPSIM_FATBINARY} --create=${images}/${element}.fatbin -64 ${parts}
              "--image3=kind=ptx,sm=80,file=${ptx}"
      DEPENDS ${files} ${ptx}
      VERBATIM)
  endfunction()
  deepsim_add_cuda_kernels(Half 75)
  deepsim_add_cuda_kernels(Brain 80)
  deepsim_add_cuda_kernels(Single 75)
  set(embedded kernels/cuda/embed.S)
  foreach(element Half Brain Single)
    string(TOUPPER ${element} name)
    set(image ${images}/${element}.fatbin)
    set_property(SOURCE ${embedded} APPEND PROPERTY OBJECT_DEPENDS ${image})
    set_property(SOURCE ${embedded} APPEND PROPERTY COMPILE_DEFINITIONS "DEEPSIM_CUDA_${name}=\"${image}\"")
  endforeach()
  target_sources(deepsim_engine PRIVATE ${embedded})
  string(REPLACE ";" "," listed "${architectures}")
  target_compile_definitions(deepsim_engine PRIVATE DEEPSIM_CUDA_EMBEDDED DEEPSIM_CUDA_ARCHITECTURES="${listed}"
    DEEPSIM_CUDA_TOOLKIT=${toolkit})
endif()
