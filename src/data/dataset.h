// A Dataset is what models learn from and are judged on: features, row by row, and what is true of each.
//
// Where it comes from, by the path:
//   DIR/train (a prefix)   DIR/train-images-idx3-ubyte[.gz] with DIR/train-labels-idx1-ubyte[.gz]
//   F.npz                  arrays x and y (y may be absent)
//   F.csv                  the column "label" (or "y", "class") is the label, without such a name the last column
//                          (unless no labels are wanted: then all columns are features)
// UINT8 features are scaled to 0..1; other datatypes are widened to FP32. Features of higher rank are flattened to
// [rows, features]. Every number must be finite, every label an integer from 0 on.
// A value.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "crypto/crypto.h"
#include "tensor/tensor.h"

namespace ganglion::data {

struct Dataset {
  tensor::Tensor x;         // FP32 [rows, features]
  std::vector<int> labels;  // rows, or empty
  // Shape of one row before it was flattened, for augmentation and pictures; {features} when it was flat.
  tensor::Shape row_shape;

  std::int64_t rows() const { return x.shape()[0]; }
  std::int64_t features() const { return x.shape()[1]; }
  std::span<const float> Row(std::int64_t i) const {
    const auto n = static_cast<std::size_t>(features());
    return x.As<float>().subspan(static_cast<std::size_t>(i) * n, n);
  }
};

struct LoadOptions {
  // Rows [begin, end) of the file; end -1 is the last. What training must never see is kept apart this way.
  std::int64_t begin = 0;
  std::int64_t end = -1;
  bool want_labels = true;
};

Result<Dataset> LoadDataset(const std::string& path, const LoadOptions& options = {});

// Features as a Dataset takes them: FP32, UINT8 scaled, flattened to [rows, features]. `row_shape` may be null.
Result<tensor::Tensor> AsFeatures(const tensor::Tensor& t, tensor::Shape* row_shape);

// SHA-256 over shape, features and labels: what a certificate names as its data.
crypto::Digest DigestOf(const Dataset& dataset);

}  // namespace ganglion::data
