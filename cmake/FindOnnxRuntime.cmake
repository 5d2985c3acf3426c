# Finds ONNX Runtime and defines the target onnxruntime::onnxruntime.
#   -DONNXRUNTIME_ROOT=DIR (or the environment variable): DIR/include and DIR/lib of an installation of yours
#   otherwise what tools/setup.sh cached outside the source tree, otherwise a system package
set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}" CACHE PATH "An installed ONNX Runtime (its include/ and lib/)")
if(DEFINED ENV{GANGLION_CACHE})
  set(_cache "$ENV{GANGLION_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(_cache "$ENV{XDG_CACHE_HOME}/ganglion")
else()
  set(_cache "$ENV{HOME}/.cache/ganglion")
endif()
set(_hints)
if(ONNXRUNTIME_ROOT)
  set(_only NO_DEFAULT_PATH)
  set(_hints "${ONNXRUNTIME_ROOT}")
else()
  set(_only)
  file(GLOB _hints "${_cache}/onnxruntime-*")
  list(SORT _hints COMPARE NATURAL ORDER DESCENDING)
endif()
find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_c_api.h HINTS ${_hints}
  PATH_SUFFIXES include include/onnxruntime onnxruntime include/onnxruntime/core/session ${_only})
find_library(OnnxRuntime_LIBRARY NAMES onnxruntime HINTS ${_hints} PATH_SUFFIXES lib lib64 ${_only})
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime REQUIRED_VARS OnnxRuntime_LIBRARY OnnxRuntime_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run tools/setup.sh build, or set -DONNXRUNTIME_ROOT to an installation")
if(OnnxRuntime_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  add_library(onnxruntime::onnxruntime SHARED IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION "${OnnxRuntime_LIBRARY}"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${OnnxRuntime_INCLUDE_DIR}")
  target_include_directories(onnxruntime::onnxruntime SYSTEM INTERFACE "${OnnxRuntime_INCLUDE_DIR}")
endif()
mark_as_advanced(OnnxRuntime_INCLUDE_DIR OnnxRuntime_LIBRARY)
