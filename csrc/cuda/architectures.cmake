# Which GPU architectures the kernels are compiled for.

# Code for each kind of GPU that there is, and PTX for those to come: what wheels carry.
set(all_gpu_architectures 80-real 86-real 89-real 90a-real 100a-real 120-real 80-virtual 120-virtual)

# wanted:       "native" (or nothing), "all", or a list as CMake spells them
# capabilities: of the GPUs that are visible, as nvidia-smi gives them ("9.0")
# known:        what nvcc --list-gpu-arch says
#
# Sets `result` to what nvcc knows of the wanted ones. "native" is code for the visible GPUs; where there is none,
# or none that nvcc knows, PTX that every GPU compiles for itself when it first runs a kernel.
function(choose_gpu_architectures wanted capabilities known result)
  if(NOT wanted)
    set(wanted native)
  endif()
  if(wanted STREQUAL "all")
    set(candidates ${all_gpu_architectures})
  elseif(wanted STREQUAL "native")
    foreach(capability IN LISTS capabilities)
      string(REPLACE "." "" number "${capability}")
      set(named ${all_gpu_architectures})  # 9.0 is compiled as 90a
      list(FILTER named INCLUDE REGEX "^${number}a?-real$")
      if(named)
        list(APPEND candidates ${named})
      elseif(number GREATER_EQUAL 80)
        list(APPEND candidates ${number}-real)
      endif()
    endforeach()
    list(REMOVE_DUPLICATES candidates)
  else()
    set(candidates ${wanted})
  endif()

  foreach(architecture IN LISTS candidates)
    string(REGEX MATCH "^[0-9]+" number "${architecture}")
    if(known MATCHES "compute_${number}[^0-9]")
      list(APPEND chosen "${architecture}")
    endif()
  endforeach()
  if(wanted STREQUAL "native" AND NOT chosen AND known MATCHES "compute_80[^0-9]")
    set(chosen 80-virtual)
  endif()
  set(${result} "${chosen}" PARENT_SCOPE)
endfunction()
