#include "data/dataset.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/limits.h"
#include "data/file.h"
#include "data/formats.h"

namespace ganglion::data {
namespace {

using tensor::DataType;
using tensor::Tensor;
namespace fs = std::filesystem;

Result<Tensor> LoadIdx(const fs::path& plain) {
  std::error_code ignored;
  const fs::path path = fs::exists(plain, ignored) ? plain : fs::path(plain.string() + ".gz");
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  auto t = ParseIdx(std::as_bytes(std::span(bytes)));
  if (!t.ok()) return t.status().Within(path.string());
  return t;
}

Result<std::vector<int>> AsLabels(const Tensor& t) {
  ASSIGN_OR_RETURN(const Tensor y, ToFp32(t));
  std::vector<int> labels;
  labels.reserve(y.As<float>().size());
  for (const float v : y.As<float>()) {
    if (!(v >= 0 && v < static_cast<float>(limits::kMaxClasses)) || v != std::floor(v)) {
      return InvalidArgument("label " + std::to_string(v) + " of row " + std::to_string(labels.size()) +
                             " is no class; integers from 0 are");
    }
    labels.push_back(static_cast<int>(v));
  }
  return labels;
}

struct Raw {
  Tensor x;
  std::optional<Tensor> y;
};

Result<Raw> LoadRaw(const std::string& path, bool want_labels) {
  Raw raw;
  std::string extension = fs::path(path).extension();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (extension == ".npz") {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
    ASSIGN_OR_RETURN(auto npz, ParseNpz(std::as_bytes(std::span(bytes))));
    ASSIGN_OR_RETURN(raw.x, Take(npz, "x"));
    if (npz.arrays.contains("y") || npz.unreadable.contains("y")) {
      ASSIGN_OR_RETURN(raw.y, Take(npz, "y"));
    }
    return raw;
  }
  if (extension == ".csv" || path.ends_with(".csv.gz")) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    ASSIGN_OR_RETURN(const Table table, ParseCsv(text));
    const auto columns = static_cast<std::size_t>(table.values.shape()[1]);
    const auto rows = static_cast<std::size_t>(table.values.shape()[0]);
    // Without a name the last column is the label, where one is wanted.
    auto label = NamedLabelColumn(table);
    if (!label && want_labels) label = columns - 1;
    const std::size_t features = columns - (label ? 1 : 0);
    if (features == 0) return InvalidArgument("CSV needs at least one column of features");
    std::vector<float> x;
    std::vector<float> y;
    const auto all = table.values.As<float>();
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) (label && c == *label ? y : x).push_back(all[r * columns + c]);
    }
    ASSIGN_OR_RETURN(raw.x,
                     Tensor::From<float>({static_cast<std::int64_t>(rows), static_cast<std::int64_t>(features)}, x));
    if (label) {
      ASSIGN_OR_RETURN(raw.y, Tensor::From<float>({static_cast<std::int64_t>(rows)}, y));
    }
    return raw;
  }
  std::error_code ignored;
  if (fs::exists(path, ignored)) {
    return InvalidArgument(
        "is no data set; give a .npz with x and y, a .csv, or the prefix of idx files (DIR/train for "
        "DIR/train-images-idx3-ubyte)");
  }
  ASSIGN_OR_RETURN(raw.x, LoadIdx(path + "-images-idx3-ubyte"));
  ASSIGN_OR_RETURN(raw.y, LoadIdx(path + "-labels-idx1-ubyte"));
  return raw;
}

Result<Dataset> Load(const std::string& path, const LoadOptions& options) {
  ASSIGN_OR_RETURN(const Raw raw, LoadRaw(path, options.want_labels));
  if (raw.x.shape().empty() || raw.x.shape()[0] == 0) return InvalidArgument("no rows");
  if (raw.y && (raw.y->shape().size() != 1 || raw.y->shape()[0] != raw.x.shape()[0])) {
    return InvalidArgument("labels " + tensor::ShapeText(raw.y->shape()) + " do not go with features " +
                           tensor::ShapeText(raw.x.shape()));
  }
  if (!raw.y && options.want_labels) return InvalidArgument("no labels");
  const std::int64_t rows = raw.x.shape()[0];
  const std::int64_t end = options.end < 0 ? rows : options.end;
  if (options.begin < 0 || options.begin >= end || end > rows) {
    return InvalidArgument("rows " + std::to_string(options.begin) + ":" + std::to_string(end) +
                           " of a file that has " + std::to_string(rows));
  }
  tensor::Shape shape;
  const auto part = tensor::Rows(raw.x.View(), options.begin, end, &shape);
  ASSIGN_OR_RETURN(const Tensor cut, Tensor::FromBytes(part.type, shape, part.bytes));
  Dataset dataset;
  ASSIGN_OR_RETURN(dataset.x, AsFeatures(cut, &dataset.row_shape));
  RETURN_IF_ERROR(tensor::CheckFinite("x", dataset.x.View()));
  if (raw.y) {
    ASSIGN_OR_RETURN(const std::vector<int> all, AsLabels(*raw.y));
    dataset.labels.assign(all.begin() + options.begin, all.begin() + end);
  }
  return dataset;
}

}  // namespace

Result<Tensor> AsFeatures(const Tensor& t, tensor::Shape* row_shape) {
  if (t.shape().empty()) return InvalidArgument("a single number is no set of rows");
  ASSIGN_OR_RETURN(const Tensor wide, ToFp32(t));
  const std::int64_t rows = wide.shape()[0];
  std::int64_t features = 1;
  for (std::size_t i = 1; i < wide.shape().size(); ++i) features *= wide.shape()[i];
  if (row_shape != nullptr) {
    row_shape->assign(wide.shape().begin() + 1, wide.shape().end());
    if (row_shape->empty()) row_shape->push_back(1);
  }
  ASSIGN_OR_RETURN(Tensor x, Tensor::FromBytes(DataType::kFp32, {rows, features}, wide.View().bytes));
  if (t.type() == DataType::kUint8) {
    for (float& v : x.As<float>()) v /= 255;
  }
  return x;
}

Result<Dataset> LoadDataset(const std::string& path, const LoadOptions& options) {
  auto dataset = Load(path, options);
  if (!dataset.ok()) {
    const auto& s = dataset.status();
    return s.message().find(path) == std::string::npos ? s.Within(path) : s;
  }
  return dataset;
}

crypto::Digest DigestOf(const Dataset& dataset) {
  crypto::Sha256Stream stream;
  const std::string head =
      "dataset " + tensor::ShapeText(dataset.x.shape()) + " " + std::to_string(dataset.labels.size()) + "\n";
  stream.Add(std::as_bytes(std::span(head)));
  stream.Add(dataset.x.View().bytes);
  stream.Add(std::as_bytes(std::span(dataset.labels)));
  return stream.Finish();
}

}  // namespace ganglion::data
