/* What nvcc compiled, as data. */
  .section .rodata
  .global deepsim_cuda_half
  .balign 64
deepsim_cuda_half:
  .incbin DEEPSIM_CUDA_HALF
  .global deepsim_cuda_brain
  .balign 64
deepsim_cuda_brain:
  .incbin DEEPSIM_CUDA_BRAIN
  .global deepsim_cuda_single
  .balign 64
deepsim_cuda_single:
  .incbin DEEPSIM_CUDA_SINGLE
  .section .note.GNU-stack,"",%progbits
