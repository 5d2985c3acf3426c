// A Model is an ONNX file, what it takes and gives, and its name: the SHA-256 of the file.
//
// Two models are the same when their digests are, whatever they are called and wherever they lie. A file that keeps
// data outside itself has no digest that means anything and is refused.
// A value, cheap to copy (the bytes are shared and immutable).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "crypto/crypto.h"
#include "tensor/tensor.h"

namespace ganglion::model {

struct Signature {
  std::vector<tensor::Spec> inputs;
  std::vector<tensor::Spec> outputs;
  // "image FP32[-1,784] -> logits FP32[-1,10]"
  std::string Text() const;
};

class Model {
 public:
  // Checks the file (graph::Parse) and reads its signature. `name` is for messages: a file name without its folder.
  static Result<Model> FromBytes(std::string name, std::string bytes);

  const std::string& name() const { return name_; }
  const Signature& signature() const { return signature_; }
  const crypto::Digest& digest() const { return digest_; }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(*bytes_)); }
  // Whether the first output is a probability distribution (it comes out of a Softmax) rather than logits.
  bool gives_probabilities() const { return gives_probabilities_; }
  std::int64_t parameter_count() const { return parameter_count_; }

 private:
  Model() = default;
  std::string name_;
  Signature signature_;
  crypto::Digest digest_;
  std::shared_ptr<const std::string> bytes_;
  bool gives_probabilities_ = false;
  std::int64_t parameter_count_ = 0;
};

}  // namespace ganglion::model
