// The formats that outside libraries open: zip (libzip), PNG (libpng), JPEG (libjpeg).
#include <png.h>
#include <zip.h>

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE and size_t
#include <cstring>

#include <jpeglib.h>

#include "base/limits.h"
#include "data/formats.h"

namespace ganglion::data {
namespace {

using tensor::DataType;
using tensor::Tensor;

Status CheckPixels(std::int64_t width, std::int64_t height) {
  if (width <= 0 || height <= 0 || width > limits::kMaxImagePixels / height) {
    return ResourceExhausted("image of " + std::to_string(width) + "x" + std::to_string(height) + " pixels, limit " +
                             std::to_string(limits::kMaxImagePixels));
  }
  return {};
}

Result<Tensor> ParsePng(std::span<const std::byte> bytes, int channels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()) == 0)
    return InvalidArgument(std::string("PNG: ") + image.message);
  if (auto s = CheckPixels(image.width, image.height); !s.ok()) {
    png_image_free(&image);
    return s;
  }
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  auto t = Tensor::Zeros(DataType::kUint8, {image.height, image.width, channels});
  if (!t.ok()) {
    png_image_free(&image);
    return t.status();
  }
  const png_color black{0, 0, 0};  // what transparent pixels lie on
  if (png_image_finish_read(&image, &black, t->Mutable().bytes.data(), 0, nullptr) == 0)
    return InvalidArgument(std::string("PNG: ") + image.message);
  return t;
}

struct JpegError {
  jpeg_error_mgr manager;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

void JpegFail(j_common_ptr info) {
  auto* error = reinterpret_cast<JpegError*>(info->err);
  info->err->format_message(info, error->message);
  std::longjmp(error->jump, 1);
}

// libjpeg reports errors by longjmp: no object with a destructor may live in this frame.
bool DecodeJpeg(const unsigned char* data, unsigned long size, int channels, jpeg_decompress_struct* info,
                JpegError* error, Tensor* out) {
  if (setjmp(error->jump) != 0) return false;
  jpeg_create_decompress(info);
  jpeg_mem_src(info, data, size);
  jpeg_read_header(info, TRUE);
  if (!CheckPixels(info->image_width, info->image_height).ok()) {
    std::strcpy(error->message, "too many pixels");
    return false;
  }
  info->out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(info);
  *out = Tensor::Zeros(DataType::kUint8, {info->output_height, info->output_width, channels}).value();
  auto* row = reinterpret_cast<JSAMPLE*>(out->Mutable().bytes.data());
  while (info->output_scanline < info->output_height) {
    JSAMPROW rows[1] = {row + static_cast<std::size_t>(info->output_scanline) * info->output_width *
                                  static_cast<unsigned>(channels)};
    jpeg_read_scanlines(info, rows, 1);
  }
  jpeg_finish_decompress(info);
  if (info->err->num_warnings > 0) {
    std::strcpy(error->message, "the file is cut short or damaged");
    return false;
  }
  return true;
}

Result<Tensor> ParseJpeg(std::span<const std::byte> bytes, int channels) {
  jpeg_decompress_struct info{};
  JpegError error{};
  info.err = jpeg_std_error(&error.manager);
  error.manager.error_exit = JpegFail;
  error.manager.emit_message = [](j_common_ptr i, int level) {
    if (level < 0) ++i->err->num_warnings;
  };
  Tensor out;
  const bool good =
      DecodeJpeg(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), channels, &info, &error, &out);
  jpeg_destroy_decompress(&info);
  if (!good) return InvalidArgument(std::string("JPEG: ") + error.message);
  return out;
}

}  // namespace

Result<Tensor> ParseImage(std::span<const std::byte> bytes, int channels) {
  if (channels != 1 && channels != 3)
    return InvalidArgument("an image has 1 or 3 channels, not " + std::to_string(channels));
  if (bytes.size() >= 8 && png_sig_cmp(reinterpret_cast<png_const_bytep>(bytes.data()), 0, 8) == 0)
    return ParsePng(bytes, channels);
  if (bytes.size() >= 3 && bytes[0] == std::byte{0xFF} && bytes[1] == std::byte{0xD8})
    return ParseJpeg(bytes, channels);
  return InvalidArgument("neither PNG nor JPEG");
}

Result<Npz> ParseNpz(std::span<const std::byte> bytes) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  if (source == nullptr) return Internal("npz: out of memory");
  zip_t* archive = zip_open_from_source(source, ZIP_RDONLY, &error);
  if (archive == nullptr) {
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    zip_source_free(source);
    return InvalidArgument("not an npz file: " + why);
  }
  Npz npz;
  Status status;
  const zip_int64_t entries = zip_get_num_entries(archive, 0);
  std::size_t total = 0;
  for (zip_int64_t i = 0; i < entries && status.ok(); ++i) {
    zip_stat_t stat;
    if (zip_stat_index(archive, static_cast<zip_uint64_t>(i), 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
      status = InvalidArgument("npz: entry " + std::to_string(i) + " has no size");
      break;
    }
    std::string name = stat.name;
    if (name.size() > 4 && name.ends_with(".npy")) name.resize(name.size() - 4);
    // Read in pieces: the directory may claim any size, memory follows what is really there.
    std::string content;
    zip_file_t* file = zip_fopen_index(archive, static_cast<zip_uint64_t>(i), 0);
    if (file == nullptr) {
      status = InvalidArgument("npz: cannot open \"" + name + "\": " + zip_strerror(archive));
      break;
    }
    constexpr std::size_t kChunk = 1 << 20;
    for (;;) {
      const std::size_t have = content.size();
      content.resize(have + kChunk);
      const zip_int64_t n = zip_fread(file, content.data() + have, kChunk);
      content.resize(have + static_cast<std::size_t>(n > 0 ? n : 0));
      if (n < 0) status = InvalidArgument("npz: \"" + name + "\" is damaged");
      total += static_cast<std::size_t>(n > 0 ? n : 0);
      if (total > limits::kMaxDataFileBytes)
        status = ResourceExhausted("npz: more than " + std::to_string(limits::kMaxDataFileBytes) + " bytes");
      if (n <= 0 || !status.ok()) break;
    }
    zip_fclose(file);
    if (!status.ok()) break;
    auto t = ParseNpy(std::as_bytes(std::span(content)));
    if (t.ok()) {
      npz.arrays.emplace(name, std::move(*t));
    } else {
      npz.unreadable.emplace(name, t.status().message());
    }
  }
  zip_discard(archive);
  if (!status.ok()) return status;
  return npz;
}

Result<Tensor> Take(Npz& npz, const std::string& name) {
  if (const auto at = npz.arrays.find(name); at != npz.arrays.end()) return std::move(at->second);
  if (const auto at = npz.unreadable.find(name); at != npz.unreadable.end())
    return InvalidArgument("npz: \"" + name + "\": " + at->second);
  std::string have;
  for (const auto& [other, unused] : npz.arrays) have += " " + other;
  return InvalidArgument("npz has no array \"" + name + "\"; it has:" + have);
}

}  // namespace ganglion::data
