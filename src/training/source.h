// A Source hands a training run its batches: which examples come in which order, as the model and the loss want them.
//
// Intuition: the examples of an epoch are numbered in the order in which they are seen. A run asks for numbers
// [begin, begin + rows) and gets them written into its buffers. Numbers, not a cursor: a run that is resumed in the
// middle of an epoch, and a rank that takes a slice of every batch, ask for theirs and get what one uninterrupted
// process would have got.
//
//   ExamplesSource  examples in memory (examples.h), shuffled whole
//   RecordSource    files of any size (data/records.h), shuffled by blocks with bounded memory
//
// Services, one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "data/records.h"
#include "gradient/gradient.h"
#include "tensor/tensor.h"
#include "training/examples.h"

namespace ganglion::training {

// What a run feeds: specs of the model's inputs, of the target, and of the labels beside it where the loss has some
// (distillation); the first dimension of each is the batch.
struct Wanted {
  std::vector<tensor::Spec> inputs;
  tensor::Spec target;
  bool label = false;
  gradient::Loss loss = gradient::Loss::kSoftmaxCrossEntropy;
  std::int64_t classes = 0;  // of the model's output; 0: unknown
};

// Buffers to be filled from row 0 on; as Wanted says.
struct Batch {
  std::vector<tensor::MutableView> inputs;
  tensor::MutableView target;
  tensor::MutableView label;
};

// The order of an epoch: everything random about it comes from here.
struct Pass {
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
  bool operator==(const Pass&) const = default;
};

class Source {
 public:
  virtual ~Source() = default;
  virtual std::int64_t count() const = 0;  // examples of an epoch
  // Names the examples: two runs on sources of the same fingerprint see the same numbers.
  virtual std::string Fingerprint() const = 0;
  // One row of each input, for models whose dimensions are open. Refuses a model that the data do not fit.
  virtual Result<std::vector<tensor::Shape>> RowShapes(const std::vector<tensor::Spec>& inputs) const = 0;
  // Before the first Fill: what will be asked for. Refuses what the data do not give, saying what they give.
  virtual Status Prepare(const Wanted& wanted) = 0;
  // Writes examples [begin, begin + rows) of the pass. REQUIRES: Prepare was OK, they are within count().
  virtual Status Fill(const Pass& pass, std::int64_t begin, std::int64_t rows, const Batch& batch) = 0;
};

// Examples with one FP32 input and a distribution over classes as their target. `examples` must outlive it.
class ExamplesSource final : public Source {
 public:
  explicit ExamplesSource(const Examples& examples) : examples_(examples) {}
  std::int64_t count() const override { return examples_.count(); }
  std::string Fingerprint() const override { return examples_.Fingerprint(); }
  Result<std::vector<tensor::Shape>> RowShapes(const std::vector<tensor::Spec>& inputs) const override;
  Status Prepare(const Wanted& wanted) override;
  Status Fill(const Pass& pass, std::int64_t begin, std::int64_t rows, const Batch& batch) override;

 private:
  const Examples& examples_;
  Pass pass_;
  std::vector<std::int64_t> order_;  // of pass_; empty before the first
  Random random_{0};                 // as example `next_` will see it
  std::int64_t next_ = 0;
};

struct RecordSourceOptions {
  // Rows [begin, end) of the records; end -1 is the last.
  std::int64_t begin = 0;
  std::int64_t end = -1;
  // Bytes of rows that are in memory at a time. What fits is read once and shuffled whole. More is read in blocks of
  // neighbouring rows: the blocks are put in random order, as many as fit are loaded, their rows are shuffled together
  // and used up, then the next are loaded. (gzip files are read in their own order and only shuffled within memory.)
  std::int64_t memory = std::int64_t{1} << 30;
  bool shuffle = true;  // false: the order of the file
  bool mirror = false;  // images: left to right half of the time
};

// Conversions: UINT8 to FP32 inputs is divided by 255, other numbers keep their value; a row may have another shape
// than the model's where the number of elements is the same ([28,28] feeds [-1,1,28,28] and [-1,784]); integer targets
// must be whole, and from 0 to classes - 1 where they are classes; a class becomes a one-hot row for
// softmax_cross_entropy_dense. FP32 must be finite.
// Fields go to inputs of the same name; a model of one input takes the field x. The target is the field y; in
// distillation it is `teacher`, if there is such a field, and y are the labels beside it.
class RecordSource final : public Source {
 public:
  static Result<std::unique_ptr<RecordSource>> Create(std::unique_ptr<data::Records> records,
                                                      const RecordSourceOptions& options);

  std::int64_t count() const override { return count_; }
  std::string Fingerprint() const override;
  Result<std::vector<tensor::Shape>> RowShapes(const std::vector<tensor::Spec>& inputs) const override;
  Status Prepare(const Wanted& wanted) override;
  Status Fill(const Pass& pass, std::int64_t begin, std::int64_t rows, const Batch& batch) override;

  const data::Records& records() const { return *records_; }
  // Bytes of rows that it holds at the most.
  std::int64_t memory_bytes() const;

 private:
  struct Feed {  // what fills one buffer
    std::size_t field = 0;
    std::int64_t elements = 0;  // of a row
    bool one_hot = false;
    bool scale = false;  // by 1/255
  };
  RecordSource() = default;
  Result<Feed> Match(std::size_t field, const tensor::Spec& to) const;
  Result<std::size_t> FieldOf(const tensor::Spec& input, std::size_t inputs) const;
  void Order(const Pass& pass);
  Status Load(std::int64_t window);
  Status CheckLoaded(std::int64_t first_row, std::int64_t at, std::int64_t rows) const;
  Status Put(const Feed& feed, std::int64_t row, const tensor::MutableView& to, std::int64_t at) const;
  void Mirror(const tensor::MutableView& to, std::int64_t at) const;
  std::int64_t BlockRows(std::int64_t block) const;

  std::unique_ptr<data::Records> records_;
  RecordSourceOptions options_;
  std::int64_t first_ = 0;  // row of the records
  std::int64_t count_ = 0;
  std::int64_t block_rows_ = 0;
  std::int64_t blocks_ = 0;
  std::int64_t window_blocks_ = 0;  // loaded together
  std::int64_t windows_ = 0;

  Wanted wanted_;
  std::vector<Feed> inputs_;
  std::optional<Feed> target_;
  std::optional<Feed> label_;

  std::optional<Pass> pass_;
  std::vector<std::int64_t> block_order_;
  std::vector<std::int64_t> window_begin_;  // the first example of each window, and count_
  Random after_blocks_{0};
  std::int64_t loaded_ = -1;                  // window
  std::optional<Pass> shuffled_;              // the pass whose order row_order_ is
  std::vector<std::vector<std::byte>> rows_;  // of each field
  std::vector<std::int64_t> block_of_;        // the blocks in rows_, in their order there
  std::vector<std::uint32_t> row_order_;      // of the examples of the window
  std::vector<bool> mirrored_;
};

}  // namespace ganglion::training
