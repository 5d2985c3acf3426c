// A folder for each class, an image for each row.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "base/limits.h"
#include "crypto/crypto.h"
#include "data/bytes.h"
#include "data/file.h"
#include "data/formats.h"
#include "data/records.h"

namespace ganglion::data {
namespace {

namespace fs = std::filesystem;
using tensor::DataType;
using tensor::Tensor;

bool IsImage(const fs::path& path) {
  std::string extension = path.extension();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

// What is in a folder, in the order of the names.
Result<std::vector<fs::path>> Listing(const fs::path& dir) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator at(dir, error), end; !error && at != end; at.increment(error))
    paths.push_back(at->path());
  if (error) return Unavailable("cannot read " + dir.string() + ": " + error.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

class ImageRecords final : public Records {
 public:
  Status Open(const std::string& path, const RecordOptions& options) {
    path_ = path;
    options_ = options;
    if (options.channels != 1 && options.channels != 3)
      return InvalidArgument("images have 1 or 3 channels, not " + std::to_string(options.channels));
    ASSIGN_OR_RETURN(const auto folders, Listing(path));
    crypto::Sha256Stream names;
    std::uintmax_t total = 0;
    for (const auto& folder : folders) {
      std::error_code ignored;
      if (!fs::is_directory(folder, ignored)) continue;
      ASSIGN_OR_RETURN(const auto files, Listing(folder));
      for (const auto& file : files) {
        if (!IsImage(file)) continue;
        files_.push_back({file, static_cast<std::int64_t>(class_names_.size())});
        total += fs::file_size(file, ignored);
      }
      class_names_.push_back(folder.filename());
    }
    if (files_.empty()) {
      return InvalidArgument(path +
                             " has no folders with PNG or JPEG images; a class is a folder, its images lie in it");
    }
    // Small sets are named by their content, large ones by names and sizes.
    constexpr std::uintmax_t kWhole = std::uintmax_t{256} << 20;
    for (const auto& file : files_) {
      std::error_code ignored;
      std::string line = fs::relative(file.path, path, ignored).string();
      if (total <= kWhole) {
        ASSIGN_OR_RETURN(const std::string content, FileFingerprint(file.path));
        line += " " + content;
      }
      line += " " + std::to_string(fs::file_size(file.path, ignored)) + "\n";
      names.Add(std::as_bytes(std::span(line)));
    }
    fingerprint_ = "images " + names.Finish().Hex() + " channels " + std::to_string(options.channels) +
                   (options.channels_last ? " last" : " first");
    rows_ = static_cast<std::int64_t>(files_.size());
    ASSIGN_OR_RETURN(const Tensor first, Load(files_[0].path));
    height_ = first.shape()[0];
    width_ = first.shape()[1];
    const tensor::Shape shape = options.channels_last ? tensor::Shape{height_, width_, options.channels}
                                                      : tensor::Shape{options.channels, height_, width_};
    fields_ = {{"x", DataType::kUint8, shape}, {"y", DataType::kInt64, {}}};
    return {};
  }

  Status Read(std::int64_t begin, std::int64_t count, std::span<const std::span<std::byte>> out) override {
    GANGLION_CHECK(begin >= 0 && count >= 0 && begin + count <= rows_ && out.size() == 2);
    const std::size_t row = fields_[0].row_bytes();
    for (std::int64_t i = 0; i < count; ++i) {
      const File& file = files_[static_cast<std::size_t>(begin + i)];
      ASSIGN_OR_RETURN(const Tensor image, Load(file.path));
      if (image.shape()[0] != height_ || image.shape()[1] != width_) {
        return InvalidArgument(file.path.string() + " is " + std::to_string(image.shape()[1]) + "x" +
                               std::to_string(image.shape()[0]) + " pixels, the first image of " + path_ + " " +
                               std::to_string(width_) + "x" + std::to_string(height_) + "; bring them to one size");
      }
      const auto* from = reinterpret_cast<const std::uint8_t*>(image.View().bytes.data());
      auto* to = reinterpret_cast<std::uint8_t*>(out[0].data()) + static_cast<std::size_t>(i) * row;
      const auto pixels = static_cast<std::size_t>(height_ * width_);
      const auto channels = static_cast<std::size_t>(options_.channels);
      if (options_.channels_last || channels == 1) {
        std::memcpy(to, from, row);
      } else {
        for (std::size_t c = 0; c < channels; ++c) {
          for (std::size_t p = 0; p < pixels; ++p) to[c * pixels + p] = from[p * channels + c];
        }
      }
      std::memcpy(out[1].data() + i * 8, &file.label, 8);
    }
    return {};
  }
  std::string Where(std::int64_t i) const override { return files_[static_cast<std::size_t>(i)].path.string(); }

 private:
  struct File {
    fs::path path;
    std::int64_t label = 0;
  };
  Result<Tensor> Load(const fs::path& path) const {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
    auto image = ParseImage(std::as_bytes(std::span(bytes)), options_.channels);
    if (!image.ok()) return image.status().Within(path.string());
    return image;
  }

  RecordOptions options_;
  std::vector<File> files_;
  std::int64_t height_ = 0;
  std::int64_t width_ = 0;
};

}  // namespace

Result<std::unique_ptr<Records>> OpenImages(const std::string& path, const RecordOptions& options) {
  auto records = std::make_unique<ImageRecords>();
  RETURN_IF_ERROR(records->Open(path, options));
  return std::unique_ptr<Records>(std::move(records));
}

}  // namespace ganglion::data
