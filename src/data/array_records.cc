// Rows of arrays: idx, npy and npz. Every row of an array is as long as the next, so any of them is where arithmetic
// says.
#include <algorithm>
#include <filesystem>

#include "base/check.h"
#include "base/limits.h"
#include "data/bytes.h"
#include "data/formats.h"
#include "data/records.h"

namespace ganglion::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeaderBytes = 66'000;

struct Array {
  Field field;
  std::int64_t rows = 0;
  std::unique_ptr<Bytes> bytes;
  std::int64_t offset = 0;
  bool swap = false;
};

Result<Array> Describe(std::unique_ptr<Bytes> bytes, const std::string& name, bool idx) {
  std::vector<std::byte> begin(kHeaderBytes);
  ASSIGN_OR_RETURN(const std::size_t n, bytes->Read(0, begin));
  begin.resize(n);
  auto header = idx ? ReadIdxHeader(begin) : ReadNpyHeader(begin);
  if (!header.ok()) return header.status().Within(bytes->path());
  const auto where = [&] { return bytes->path() + (name.empty() ? "" : ": \"" + name + "\""); };
  if (header->shape.empty()) return InvalidArgument(where() + " is a single number, want rows");
  Array array;
  array.rows = header->shape[0];
  array.field = {name, header->type, {header->shape.begin() + 1, header->shape.end()}};
  array.offset = static_cast<std::int64_t>(header->offset);
  array.swap = header->big_endian;
  std::int64_t elements = 1;  // of a row
  for (const auto d : array.field.shape) {
    if (d < 0 || (d > 0 && elements > limits::kMaxRowElements / d)) {
      return ResourceExhausted(where() + " of shape " + tensor::ShapeText(header->shape) + " has rows of more than " +
                               std::to_string(limits::kMaxRowElements) + " numbers");
    }
    elements *= d;
  }
  const auto row = static_cast<std::int64_t>(array.field.row_bytes());
  if (array.rows < 1 || row < 1)
    return InvalidArgument(where() + " of shape " + tensor::ShapeText(header->shape) + " has no rows");
  if (array.rows > (INT64_MAX - array.offset) / row)
    return InvalidArgument(where() + " claims " + std::to_string(array.rows) + " rows, more than a file can hold");
  const std::int64_t want = array.offset + array.rows * row;
  if (bytes->size() >= 0 && bytes->size() != want) {
    return InvalidArgument(where() + " of shape " + tensor::ShapeText(header->shape) + " takes " +
                           std::to_string(want) + " bytes, it has " + std::to_string(bytes->size()) +
                           (bytes->size() < want ? "; it is cut short" : ""));
  }
  array.bytes = std::move(bytes);
  return array;
}

class ArrayRecords final : public Records {
 public:
  // `fingerprint` names the files behind the arrays.
  Status Init(const std::string& path, std::vector<Array> arrays, std::string fingerprint) {
    path_ = path;
    fingerprint_ = std::move(fingerprint);
    arrays_ = std::move(arrays);
    rows_ = arrays_[0].rows;
    for (auto& a : arrays_) {
      if (a.rows != rows_) {
        return InvalidArgument("\"" + a.field.name + "\" has " + std::to_string(a.rows) + " rows, \"" +
                               arrays_[0].field.name + "\" " + std::to_string(rows_));
      }
      sequential_ = sequential_ || a.bytes->sequential();
      fields_.push_back(a.field);
    }
    return {};
  }

  Status Read(std::int64_t begin, std::int64_t count, std::span<const std::span<std::byte>> out) override {
    GANGLION_CHECK(begin >= 0 && count >= 0 && begin + count <= rows_ && out.size() == arrays_.size());
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      Array& a = arrays_[i];
      const std::size_t row = a.field.row_bytes();
      GANGLION_CHECK(out[i].size() == static_cast<std::size_t>(count) * row);
      if (auto s = a.bytes->ReadAll(a.offset + begin * static_cast<std::int64_t>(row), out[i]); !s.ok())
        return a.field.name.empty() ? s : s.Within("\"" + a.field.name + "\"");
      if (a.swap) SwapBytes(out[i], tensor::SizeOf(a.field.type));
    }
    return {};
  }

 private:
  std::vector<Array> arrays_;
};

// The array that is the target is called y, whatever its file says.
Status NameTarget(std::vector<Array>& arrays, const RecordOptions& options) {
  if (options.targets.empty()) return {};
  if (options.targets.size() > 1)
    return InvalidArgument("one array is the target, not " + std::to_string(options.targets.size()));
  std::string have;
  for (auto& a : arrays) {
    have += " " + a.field.name;
    if (a.field.name != options.targets[0]) continue;
    for (auto& other : arrays) {
      if (other.field.name == "y") other.field.name = "y.";  // the one that is not meant
    }
    a.field.name = "y";
    return {};
  }
  return InvalidArgument("there is no array \"" + options.targets[0] + "\"; there are:" + have);
}

Result<std::unique_ptr<Records>> Make(const std::string& path, std::vector<Array> arrays, std::string fingerprint) {
  auto records = std::make_unique<ArrayRecords>();
  if (arrays.empty()) return InvalidArgument("no arrays");
  RETURN_IF_ERROR(records->Init(path, std::move(arrays), std::move(fingerprint)));
  return std::unique_ptr<Records>(std::move(records));
}

Result<Array> OpenIdx(const fs::path& plain, const std::string& name, std::string* fingerprint) {
  std::error_code ignored;
  const fs::path path = fs::exists(plain, ignored) ? plain : fs::path(plain.string() + ".gz");
  ASSIGN_OR_RETURN(auto bytes, OpenBytes(path));
  ASSIGN_OR_RETURN(const std::string one, FileFingerprint(path));
  *fingerprint += " " + one;
  return Describe(std::move(bytes), name, true);
}

Result<std::unique_ptr<Records>> OpenNpz(const std::string& path, const RecordOptions& options) {
  ASSIGN_OR_RETURN(const auto entries, ZipEntries(path));
  ASSIGN_OR_RETURN(std::string fingerprint, FileFingerprint(path));
  std::vector<Array> arrays;
  std::string unreadable;
  for (const auto& entry : entries) {
    if (!entry.ends_with(".npy")) continue;
    const std::string name = entry.substr(0, entry.size() - 4);
    ASSIGN_OR_RETURN(auto bytes, OpenZipEntry(path, entry));
    auto array = Describe(std::move(bytes), name, false);
    if (array.ok()) {
      arrays.push_back(std::move(*array));
    } else if (name == "x" || name == "y") {
      return array.status();
    } else {
      unreadable += "; " + array.status().message();  // text and the like, which nobody may need
    }
  }
  if (arrays.empty()) return InvalidArgument("no arrays of numbers" + unreadable);
  // Arrays of another length (class names, statistics) are no part of the rows.
  const auto x = std::find_if(arrays.begin(), arrays.end(), [](const Array& a) { return a.field.name == "x"; });
  const std::int64_t rows = x == arrays.end() ? arrays[0].rows : x->rows;
  arrays.erase(std::remove_if(arrays.begin(), arrays.end(),
                              [&](const Array& a) {
                                return a.rows != rows && a.field.name != "y" &&
                                       std::find(options.targets.begin(), options.targets.end(), a.field.name) ==
                                           options.targets.end();
                              }),
               arrays.end());
  RETURN_IF_ERROR(NameTarget(arrays, options));
  return Make(path, std::move(arrays), "npz " + fingerprint);
}

}  // namespace

Result<std::unique_ptr<Records>> OpenArrays(const std::string& path, const RecordOptions& options) {
  std::error_code ignored;
  const fs::path p(path);
  std::string fingerprint;
  std::vector<Array> arrays;
  if (fs::is_directory(p, ignored)) {
    std::vector<fs::path> files;
    for (fs::directory_iterator at(p, ignored), end; at != end; at.increment(ignored)) {
      if (at->path().extension() == ".npy") files.push_back(at->path());
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
      ASSIGN_OR_RETURN(auto bytes, OpenBytes(file));
      ASSIGN_OR_RETURN(const std::string one, FileFingerprint(file));
      ASSIGN_OR_RETURN(auto array, Describe(std::move(bytes), file.stem(), false));
      fingerprint += " " + array.field.name + " " + one;
      arrays.push_back(std::move(array));
    }
    RETURN_IF_ERROR(NameTarget(arrays, options));
    return Make(path, std::move(arrays), "npy" + fingerprint);
  }
  if (p.extension() == ".npz") return OpenNpz(path, options);
  if (p.extension() == ".npy") {
    ASSIGN_OR_RETURN(auto bytes, OpenBytes(p));
    ASSIGN_OR_RETURN(fingerprint, FileFingerprint(p));
    ASSIGN_OR_RETURN(auto array, Describe(std::move(bytes), "x", false));
    arrays.push_back(std::move(array));
    return Make(path, std::move(arrays), "npy " + fingerprint);
  }
  ASSIGN_OR_RETURN(auto x, OpenIdx(path + "-images-idx3-ubyte", "x", &fingerprint));
  arrays.push_back(std::move(x));
  if (options.want_target || fs::exists(path + "-labels-idx1-ubyte", ignored) ||
      fs::exists(path + "-labels-idx1-ubyte.gz", ignored)) {
    ASSIGN_OR_RETURN(auto y, OpenIdx(path + "-labels-idx1-ubyte", "y", &fingerprint));
    arrays.push_back(std::move(y));
  }
  return Make(path, std::move(arrays), "idx" + fingerprint);
}

}  // namespace ganglion::data
