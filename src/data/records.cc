#include "data/records.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

namespace ganglion::data {
namespace {

namespace fs = std::filesystem;

std::string LowerExtension(const std::string& path) {
  fs::path p(path);
  if (p.extension() == ".gz") p = p.stem();
  std::string extension = p.extension();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

Result<std::unique_ptr<Records>> Open(const std::string& path, const RecordOptions& options) {
  const std::string extension = LowerExtension(path);
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    for (fs::directory_iterator at(path, ignored), end; at != end; at.increment(ignored)) {
      if (at->path().extension() == ".npy") return OpenArrays(path, options);
    }
    return OpenImages(path, options);
  }
  if (extension == ".csv") return OpenCsv(path, options);
  if (extension == ".txt") return OpenText(path, options);
  if (extension == ".npz" || extension == ".npy" || !fs::exists(path, ignored)) return OpenArrays(path, options);
  return InvalidArgument(
      "is no data set; give a .npz, .npy, .csv or .txt file, a folder of .npy files or of folders of images, or the "
      "prefix of idx files (DIR/train for DIR/train-images-idx3-ubyte)");
}

}  // namespace

std::size_t Field::row_bytes() const {
  std::size_t count = 1;
  for (const auto d : shape) count *= static_cast<std::size_t>(d);
  return count * tensor::SizeOf(type);
}

std::string Field::Text() const { return name + " " + std::string(tensor::Name(type)) + tensor::ShapeText(shape); }

std::optional<std::size_t> Records::FieldIndex(const std::string& name) const {
  for (std::size_t i = 0; i < fields_.size(); ++i) {
    if (fields_[i].name == name) return i;
  }
  return std::nullopt;
}

Result<std::unique_ptr<Records>> OpenRecords(const std::string& path, const RecordOptions& options) {
  auto records = Open(path, options);
  if (!records.ok()) {
    const Status& s = records.status();
    return s.message().find(path) == std::string::npos ? s.Within(path) : s;
  }
  return records;
}

}  // namespace ganglion::data
