// A Tensor is a datatype, a shape and the numbers in row-major order: what models eat and give.
//
// Tensor owns its bytes (64-byte aligned); View and MutableView borrow them. A Spec is what a model or a decision
// promises about a tensor: name, datatype and a shape in which -1 is "any" (in practice the batch), written
// "FP32[-1,784]" in files and messages.
//
// Shapes: dimensions >= 0, at most limits::kMaxTensorRank of them, the product at most limits::kMaxTensorElements.
// BYTES tensors keep the wire encoding (4-byte little-endian length, then the bytes, for each element).
// All are values. Errors name the tensor, what it is and what was wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "tensor/datatype.h"

namespace ganglion::tensor {

using Shape = std::vector<std::int64_t>;

// The product of the dimensions, or a refusal for negative dimensions, too high a rank or too many elements.
Result<std::int64_t> ElementCount(std::span<const std::int64_t> shape);
// "[2,784]"
std::string ShapeText(std::span<const std::int64_t> shape);

// OK when `bytes` are exactly a tensor of that datatype and shape; BYTES elements are walked one by one.
Status CheckBytes(DataType type, std::span<const std::int64_t> shape, std::span<const std::byte> bytes);

struct View {
  DataType type = DataType::kFp32;
  std::span<const std::int64_t> shape;
  std::span<const std::byte> bytes;

  // REQUIRES: T is the view's datatype.
  template <typename T>
  std::span<const T> As() const {
    GANGLION_CHECK(DataTypeOf<T>::value == type);
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

struct MutableView {
  DataType type = DataType::kFp32;
  std::span<const std::int64_t> shape;
  std::span<std::byte> bytes;

  operator View() const { return {type, shape, bytes}; }  // NOLINT: reading is always allowed
  template <typename T>
  std::span<T> As() const {
    GANGLION_CHECK(DataTypeOf<T>::value == type);
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

class Tensor {
 public:
  Tensor() = default;
  // Zero-filled. Refuses BYTES (use FromBytes) and shapes beyond the limits.
  static Result<Tensor> Zeros(DataType type, Shape shape);
  // Takes the numbers as they are. Refuses a count that does not match the shape.
  template <typename T>
  static Result<Tensor> From(Shape shape, std::span<const T> values) {  // NOLINT: shape is moved on
    return FromBytes(DataTypeOf<T>::value, std::move(shape), std::as_bytes(values));
  }
  static Result<Tensor> FromBytes(DataType type, Shape shape, std::span<const std::byte> bytes);

  DataType type() const { return type_; }
  const Shape& shape() const { return shape_; }
  std::size_t size_bytes() const { return bytes_.size(); }
  tensor::View View() const { return {type_, shape_, bytes_}; }
  MutableView Mutable() { return {type_, shape_, bytes_}; }
  template <typename T>
  std::span<const T> As() const {
    return View().As<T>();
  }
  template <typename T>
  std::span<T> As() {
    return Mutable().As<T>();
  }

 private:
  template <typename T>
  struct Aligned {
    using value_type = T;
    Aligned() = default;
    template <typename U>
    Aligned(const Aligned<U>&) {}  // NOLINT: allocators convert
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
    void deallocate(T* p, std::size_t) { ::operator delete (p, std::align_val_t{64}); }
    bool operator==(const Aligned&) const { return true; }
  };

  DataType type_ = DataType::kFp32;
  Shape shape_{0};
  std::vector<std::byte, Aligned<std::byte>> bytes_;
};

// What a model or decision says about one of its tensors.
struct Spec {
  std::string name;
  DataType type = DataType::kFp32;
  Shape shape;  // -1: any

  // "FP32[-1,784]"
  std::string Text() const;
  bool operator==(const Spec&) const = default;
};

// Reads "FP32[-1,784]". The name is the caller's to set.
Result<Spec> ParseSpec(const std::string& text);
// OK when `view` has the datatype and a shape that `spec` allows.
Status Matches(const Spec& spec, const View& view);
// OK when every FP32 or FP64 number is finite; names the first one that is not and its index. Other datatypes pass.
// Cost: one pass, vectorised; about 40 ns for 784 floats.
Status CheckFinite(const std::string& name, const View& view);

// Rows [begin, end) of the first dimension, borrowed. REQUIRES: rank >= 1 and 0 <= begin <= end <= shape[0].
// `shape` receives the shape and must outlive the view.
View Rows(const View& view, std::int64_t begin, std::int64_t end, Shape* shape);

}  // namespace ganglion::tensor
