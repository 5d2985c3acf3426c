// Records are rows of named tensors kept in files, read a few at a time: data of any size, on a machine of any size.
//
// Intuition: a training run needs the next few thousand rows, never all of them. Whatever the format, a reader says how
// many rows there are and what one looks like, and gives any run of them.
//
// What OpenRecords opens, by the path:
//   DIR/train (a prefix)  DIR/train-images-idx3-ubyte[.gz] and DIR/train-labels-idx1-ubyte[.gz]      x, y
//   F.npz                 arrays of equal first dimension, under their names                          x, y, ...
//   F.npy                 one array                                                                   x
//   DIR with *.npy        arrays of equal first dimension, under their names                          x, y, ...
//   F.csv[.gz]            numbers; the target columns are y, the others x (as in dataset.h)           x, y
//   F.txt[.gz]            text, as RecordOptions says                                                 x, y
//   DIR with folders      PNG and JPEG images of one size; a class for each folder, in the order of their names
//                         (class names come with it)                                                  x, y
// Fields: a name, a datatype and the shape of one row. The datatype is the file's; who uses it converts.
// Memory: one read, an index of a few bytes for each 1,000 lines of CSV and text, and the names of images. CSV and text
// are read through once when they are opened, to count their lines. Errors name file, line or row, and the value. One
// thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::data {

struct Field {
  std::string name;
  tensor::DataType type = tensor::DataType::kFp32;
  tensor::Shape shape;  // of one row; {} is a number

  std::size_t row_bytes() const;
  // "x UINT8[28,28]"
  std::string Text() const;
};

struct RecordOptions {
  // CSV: the columns that are y, by name. Empty: the column called label, y or class, else the last one. npz and npy
  // folders: the array that is y, by name.
  std::vector<std::string> targets;
  // False: nothing is a target, all columns of a CSV are x.
  bool want_target = true;

  // Text.
  enum class Text { kLabelFirst, kLanguage } text = Text::kLabelFirst;
  // kLabelFirst: a line is a label (an integer), white space, and the text; x [length] is cut or filled up with `pad`.
  // kLanguage: the file is one text; a row is `length` tokens (x) and the token after each of them (y).
  std::int64_t length = 0;
  // Tokens are bytes (0..255), or, with a vocabulary, the words between white space: the n-th line (from 0) of the
  // file is token n. A word that is not there is "<unk>" where the vocabulary has that, else an error. A line's end is
  // the token "<eos>" where there is one, filling up is "<pad>" where there is one, else token 0.
  std::string vocabulary;

  // Folders of images.
  int channels = 3;            // 1 or 3
  bool channels_last = false;  // x is [height, width, channels] instead of [channels, height, width]
};

class Records {
 public:
  virtual ~Records() = default;
  const std::vector<Field>& fields() const { return fields_; }
  std::int64_t rows() const { return rows_; }
  // Names the data: files of the same fingerprint hold the same rows.
  const std::string& fingerprint() const { return fingerprint_; }
  const std::string& path() const { return path_; }
  // Whether going back costs a pass from the beginning: then it is read in order.
  bool sequential() const { return sequential_; }
  // A folder's class names, in the order of the labels; empty elsewhere.
  const std::vector<std::string>& class_names() const { return class_names_; }

  // Rows [begin, begin + count) of every field into `out`, one view of [count, ...] for each field, in their order.
  // REQUIRES: 0 <= begin, begin + count <= rows(), views of the fields' datatypes and sizes.
  virtual Status Read(std::int64_t begin, std::int64_t count, std::span<const std::span<std::byte>> out) = 0;
  // How a message names row `i`: "FILE row 7", "FILE line 8".
  virtual std::string Where(std::int64_t i) const { return path_ + " row " + std::to_string(i); }

  // The field called `name`, or its index; nothing where there is none.
  std::optional<std::size_t> FieldIndex(const std::string& name) const;

 protected:
  std::vector<Field> fields_;
  std::int64_t rows_ = 0;
  std::string fingerprint_;
  std::string path_;
  bool sequential_ = false;
  std::vector<std::string> class_names_;
};

Result<std::unique_ptr<Records>> OpenRecords(const std::string& path, const RecordOptions& options = {});

// The formats by themselves; OpenRecords chooses among them.
Result<std::unique_ptr<Records>> OpenArrays(const std::string& path, const RecordOptions& options);  // idx, npy, npz
Result<std::unique_ptr<Records>> OpenCsv(const std::string& path, const RecordOptions& options);
Result<std::unique_ptr<Records>> OpenText(const std::string& path, const RecordOptions& options);
Result<std::unique_ptr<Records>> OpenImages(const std::string& path, const RecordOptions& options);

}  // namespace ganglion::data
