# Compiles the CUDA kernels, once each for fp16, bfloat16 and fp32, and embeds them into the library. Nothing of CUDA is
# linked: the driver is opened at run time.
#   DEEPSIM_CUDA=AUTO      where nvcc is found (default); ON: it must be; OFF: leave the kernels out
#   DEEPSIM_CUDA=EMULATED  for tests: the kernels run in what stands in for the driver
set(DEEPSIM_CUDA AUTO CACHE STRING "CUDA kernels: AUTO, ON, OFF or EMULATED")
set(DEEPSIM_CUDA_ARCHITECTURES "75;80;86;89;90;100;120" CACHE STRING "Compute capabilities of the kernels; bfloat16 from 80")

find_program(DEEPSIM_NVCC nvcc)
if(DEEPSIM_CUDA STREQUAL "ON" AND NOT DEEPSIM_NVCC)
  message(FATAL_ERROR "nvcc: not found, expected a CUDA toolkit. Put it on PATH, or configure with -DDEEPSIM_CUDA=OFF.")
endif()
if(DEEPSIM_CUDA STREQUAL "EMULATED")
  target_compile_definitions(engine_objects PRIVATE DEEPSIM_CUDA_EMULATED DEEPSIM_CUDA_ARCHITECTURES="emulated")
elseif(DEEPSIM_CUDA STREQUAL "OFF" OR NOT DEEPSIM_NVCC)
  message(STATUS "deepsim: CUDA kernels are left out (no nvcc, or DEEPSIM_CUDA=OFF); the backend cuda will say so")
else()
  enable_language(ASM)
  function(add_cuda_kernels element oldest)
    set(targets)
    foreach(architecture IN LISTS DEEPSIM_CUDA_ARCHITECTURES)
      if(architecture GREATER_EQUAL oldest)
        # 9.0 is one kind of GPU, Hopper, and all of them are 9.0a: that alone has the instructions of shift_gemm_hopper.h.
        string(REGEX REPLACE "^90$" "90a" target ${architecture})
        list(APPEND targets -gencode=arch=compute_${target},code=sm_${target})
      endif()
    endforeach()
    list(GET DEEPSIM_CUDA_ARCHITECTURES -1 newest)  # and as PTX, for what comes after
    list(APPEND targets -gencode=arch=compute_${newest},code=compute_${newest})
    set(sources ${CMAKE_CURRENT_SOURCE_DIR}/kernels/cuda)
    file(GLOB headers CONFIGURE_DEPENDS ${sources}/*.h)
    add_custom_command(
      OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/cuda_${element}.fatbin
      COMMAND ${DEEPSIM_NVCC} -std=c++17 -O3 -DDEEPSIM_ELEMENT=${element} ${targets} --threads 0 --fatbin
              -o ${CMAKE_CURRENT_BINARY_DIR}/cuda_${element}.fatbin ${sources}/kernels.cu
      DEPENDS ${sources}/kernels.cu ${headers}
      COMMENT "Compiling the CUDA kernels for ${element}"
      VERBATIM)
  endfunction()
  add_cuda_kernels(Half 75)
  add_cuda_kernels(Brain 80)
  add_cuda_kernels(Single 75)
  set(embedded kernels/cuda/embed.S)
  foreach(element Half Brain Single)
    string(TOUPPER ${element} name)
    set(image ${CMAKE_CURRENT_BINARY_DIR}/cuda_${element}.fatbin)
    set_property(SOURCE ${embedded} APPEND PROPERTY OBJECT_DEPENDS ${image})
    set_property(SOURCE ${embedded} APPEND PROPERTY COMPILE_DEFINITIONS "DEEPSIM_CUDA_${name}=\"${image}\"")
  endforeach()
  target_sources(engine_objects PRIVATE ${embedded})
  string(REPLACE ";" "," listed "${DEEPSIM_CUDA_ARCHITECTURES}")
  target_compile_definitions(engine_objects PRIVATE DEEPSIM_CUDA_EMBEDDED DEEPSIM_CUDA_ARCHITECTURES="${listed}")
endif()
