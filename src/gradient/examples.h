// ExampleMap says where the examples of a batch lie in each value of a model, so that gradients can be told apart.
//
// Intuition: the first axis of the inputs counts examples. Transpose moves that axis, Reshape may fold it together with
// others ([batch, T, d] into [batch T, d], T rows for each example); most operators leave it alone. What sums over it,
// or looks along it, mixes examples: then no part of the output belongs to one of them.
//
// Of each operator it is known here what it does to that axis; of one that is not known it is assumed that it mixes.
// Thread-compatible; pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/status.h"
#include "gradient/rules.h"
#include "tensor/tensor.h"

namespace onnx {
class NodeProto;
}

namespace ganglion::gradient {

// The examples lie along `axis`, `per` positions in a row for each of them, the first example first.
struct Examples {
  std::size_t axis = 0;
  std::int64_t per = 1;
  bool operator==(const Examples&) const = default;
};

class ExampleMap {
 public:
  // `batch`: the number of examples, -1 where it is open.
  explicit ExampleMap(std::int64_t batch) : batch_(batch) {}

  // An input of the model: one whose first axis is the batch holds examples.
  void Input(const std::string& name, const tensor::Shape& shape);
  // The outputs of a node, by those of its inputs. Refuses a node that mixes examples, or may.
  Status Add(const onnx::NodeProto& n, const Shapes& shapes);
  // Null: the value is the same for every example.
  const Examples* Find(const std::string& value) const;

 private:
  const std::int64_t batch_;
  std::map<std::string, Examples> at_;
};

}  // namespace ganglion::gradient
