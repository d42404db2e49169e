// What we use of DLPack's C exchange interface, version 1 (github.com/dmlc/dlpack, dlpack.h): from a
// Python tensor to its memory, sizes and strides in one call. Layouts are the standard's.
#pragma once

#include <cstdint>

namespace glai::bindings::dlpack {

constexpr std::uint32_t kMajorVersion = 1;

enum DeviceCode : std::int32_t { cpu = 1, cuda = 2 };
enum TypeCode : std::uint8_t {
  integer = 0,
  unsigned_integer = 1,
  floating = 2,
  bfloat = 4,
  boolean = 6
};

struct Tensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t type_code, bits;
  std::uint16_t lanes;
  const std::int64_t* shape;
  const std::int64_t* strides;  // in elements
  std::uint64_t byte_offset;
};

struct ExchangeApi {
  std::uint32_t major, minor;
  const void* previous;
  void *allocate, *from_object, *to_object;
  // Fills in `out`, whose arrays belong to the object; -1 and a Python exception where it cannot.
  int (*view_of_object)(void* object, Tensor* out);
  void* current_stream;
};

}  // namespace glai::bindings::dlpack
