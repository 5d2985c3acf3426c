#include "training/source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "base/limits.h"
#include "data/formats.h"

namespace ganglion::training {
namespace {

using tensor::DataType;
using tensor::Shape;
using tensor::Spec;

constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20;
constexpr std::int64_t kMostBlockRows = 65'536;

// The elements of one row, 0 where a dimension is open.
std::int64_t RowElements(const Spec& spec) {
  std::int64_t n = 1;
  for (std::size_t i = 1; i < spec.shape.size(); ++i) n *= std::max<std::int64_t>(spec.shape[i], 0);
  return n;
}

std::int64_t Elements(const Shape& shape) {
  std::int64_t n = 1;
  for (const auto d : shape) n *= d;
  return n;
}

// The dimensions of a row that a model leaves open are the data's, where both have as many.
Result<Shape> RowShape(const Spec& spec, const Shape& row) {
  Shape shape(spec.shape.empty() ? spec.shape.begin() : spec.shape.begin() + 1, spec.shape.end());
  const bool open = std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; });
  if (!open) return shape;
  Shape from = row;
  if (from.size() + 1 == shape.size() && (shape[0] == 1 || shape[0] < 0)) from.insert(from.begin(), 1);  // a channel
  if (from.size() != shape.size()) {
    return InvalidArgument("input \"" + spec.name + "\" " + spec.Text() +
                           " leaves dimensions open that rows of shape " + tensor::ShapeText(row) + " do not fix");
  }
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) shape[i] = from[i];
  }
  return shape;
}

bool IsInteger(DataType type) {
  switch (type) {
    case DataType::kFp16:
    case DataType::kBf16:
    case DataType::kFp32:
    case DataType::kFp64:
    case DataType::kBytes:
      return false;
    default:
      return true;
  }
}

// Element `i` as a whole number; nothing when it is not one.
std::optional<std::int64_t> WholeNumber(DataType type, const std::byte* bytes, std::int64_t i) {
  const auto integer = [&]<typename T>(T) { return static_cast<std::int64_t>(reinterpret_cast<const T*>(bytes)[i]); };
  switch (type) {
    case DataType::kBool:
    case DataType::kUint8:
      return integer(std::uint8_t{});
    case DataType::kInt8:
      return integer(std::int8_t{});
    case DataType::kUint16:
      return integer(std::uint16_t{});
    case DataType::kInt16:
      return integer(std::int16_t{});
    case DataType::kUint32:
      return integer(std::uint32_t{});
    case DataType::kInt32:
      return integer(std::int32_t{});
    case DataType::kUint64:
      if (reinterpret_cast<const std::uint64_t*>(bytes)[i] > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
      return integer(std::uint64_t{});
    case DataType::kInt64:
      return integer(std::int64_t{});
    case DataType::kFp32:
    case DataType::kFp64: {
      const double v = type == DataType::kFp32 ? reinterpret_cast<const float*>(bytes)[i]
                                               : reinterpret_cast<const double*>(bytes)[i];
      if (!(std::fabs(v) < 0x1p53) || v != std::floor(v)) return std::nullopt;
      return static_cast<std::int64_t>(v);
    }
    default:
      return std::nullopt;
  }
}

std::string NumberText(DataType type, const std::byte* bytes, std::int64_t i) {
  if (const auto whole = WholeNumber(type, bytes, i)) return std::to_string(*whole);
  float v = 0;
  data::Widen({type, {}, {bytes + static_cast<std::size_t>(i) * tensor::SizeOf(type), tensor::SizeOf(type)}}, {&v, 1});
  return std::to_string(v);
}

}  // namespace

Result<std::vector<Shape>> ExamplesSource::RowShapes(const std::vector<Spec>& inputs) const {
  if (inputs.size() != 1)
    return InvalidArgument("these examples feed one input, the model has " + std::to_string(inputs.size()));
  ASSIGN_OR_RETURN(Shape shape, RowShape(inputs[0], {examples_.features()}));
  return std::vector<Shape>{std::move(shape)};
}

Status ExamplesSource::Prepare(const Wanted& w) {
  const bool fits = w.inputs.size() == 1 && w.inputs[0].type == DataType::kFp32 &&
                    RowElements(w.inputs[0]) == examples_.features() && w.target.type == DataType::kFp32 &&
                    RowElements(w.target) == examples_.classes() && !w.label;
  if (fits) return {};
  std::string want;
  for (const auto& spec : w.inputs) want += spec.name + " " + spec.Text() + ", ";
  return InvalidArgument("the step takes " + want + "target " + w.target.Text() + (w.label ? ", label" : "") +
                         "; the data have " + std::to_string(examples_.features()) + " features and " +
                         std::to_string(examples_.classes()) + " classes");
}

Status ExamplesSource::Fill(const Pass& pass, std::int64_t begin, std::int64_t rows, const Batch& batch) {
  const auto x = batch.inputs[0].As<float>();
  const auto y = batch.target.As<float>();
  const auto features = static_cast<std::size_t>(examples_.features());
  const auto classes = static_cast<std::size_t>(examples_.classes());
  if (order_.empty() || !(pass == pass_) || begin < next_) {
    pass_ = pass;
    random_ = Random(pass.seed).Fork(static_cast<std::uint64_t>(pass.epoch) + 1);
    order_.resize(static_cast<std::size_t>(count()));
    std::iota(order_.begin(), order_.end(), 0);
    random_.Shuffle(order_);
    next_ = 0;
  }
  // Examples that are left out draw their numbers, too, so that the stream stays what it is.
  for (; next_ < begin; ++next_) {
    examples_.Fill(order_[static_cast<std::size_t>(next_)], pass.epoch, random_, x.first(features), y.first(classes));
  }
  for (std::int64_t r = 0; r < rows; ++r, ++next_) {
    examples_.Fill(order_[static_cast<std::size_t>(next_)], pass.epoch, random_,
                   x.subspan(static_cast<std::size_t>(r) * features, features),
                   y.subspan(static_cast<std::size_t>(r) * classes, classes));
  }
  return {};
}

Result<std::unique_ptr<RecordSource>> RecordSource::Create(std::unique_ptr<data::Records> records,
                                                           const RecordSourceOptions& options) {
  std::unique_ptr<RecordSource> source(new RecordSource);
  const std::int64_t end = options.end < 0 ? records->rows() : options.end;
  if (options.begin < 0 || options.begin >= end || end > records->rows()) {
    return InvalidArgument("rows " + std::to_string(options.begin) + ":" + std::to_string(end) + " of " +
                           records->path() + ", which has " + std::to_string(records->rows()));
  }
  if (options.memory < 1)
    return InvalidArgument("memory must be at least 1 byte, got " + std::to_string(options.memory));
  std::int64_t row_bytes = 0;
  for (const auto& f : records->fields()) row_bytes += static_cast<std::int64_t>(f.row_bytes());
  source->options_ = options;
  source->first_ = options.begin;
  source->count_ = end - options.begin;
  source->block_rows_ =
      std::clamp(std::min(kBlockBytes, options.memory / 8) / row_bytes, std::int64_t{1}, kMostBlockRows);
  // Text is indexed by thousands of lines: blocks of whole thousands need not read over others.
  if (source->block_rows_ > 1000) source->block_rows_ -= source->block_rows_ % 1000;
  source->blocks_ = (source->count_ + source->block_rows_ - 1) / source->block_rows_;
  source->window_blocks_ =
      std::clamp(options.memory / (source->block_rows_ * row_bytes), std::int64_t{1}, source->blocks_);
  if (source->count_ <= options.memory / row_bytes) source->window_blocks_ = source->blocks_;
  source->windows_ = (source->blocks_ + source->window_blocks_ - 1) / source->window_blocks_;
  if (source->window_blocks_ * source->block_rows_ > std::int64_t{UINT32_MAX})
    return ResourceExhausted("memory for more than 4 billion rows at a time; give less");
  source->records_ = std::move(records);
  source->rows_.resize(source->records_->fields().size());
  return source;
}

std::string RecordSource::Fingerprint() const {
  return records_->fingerprint() + " rows " + std::to_string(first_) + ":" + std::to_string(first_ + count_) +
         " windows " + std::to_string(block_rows_) + " " + std::to_string(window_blocks_) + " " +
         (options_.shuffle ? "shuffled" : "in order") + (options_.mirror ? " mirrored" : "");
}

std::int64_t RecordSource::memory_bytes() const {
  std::int64_t row_bytes = 0;
  for (const auto& f : records_->fields()) row_bytes += static_cast<std::int64_t>(f.row_bytes());
  return std::min(window_blocks_ * block_rows_, count_) * row_bytes;
}

std::int64_t RecordSource::BlockRows(std::int64_t block) const {
  return std::min(block_rows_, count_ - block * block_rows_);
}

Result<std::size_t> RecordSource::FieldOf(const Spec& input, std::size_t inputs) const {
  if (const auto named = records_->FieldIndex(input.name)) return *named;
  const auto x = records_->FieldIndex("x");
  if (inputs == 1 && x) return *x;
  std::string have;
  for (const auto& f : records_->fields()) have += (have.empty() ? "" : ", ") + f.Text();
  return InvalidArgument("input \"" + input.name + "\": " + records_->path() + " has no field of that name; it has " +
                         have);
}

Result<std::vector<Shape>> RecordSource::RowShapes(const std::vector<Spec>& inputs) const {
  std::vector<Shape> shapes;
  shapes.reserve(inputs.size());
  for (const auto& spec : inputs) {
    ASSIGN_OR_RETURN(const std::size_t field, FieldOf(spec, inputs.size()));
    ASSIGN_OR_RETURN(Shape shape, RowShape(spec, records_->fields()[field].shape));
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

Result<RecordSource::Feed> RecordSource::Match(std::size_t field, const Spec& to) const {
  const data::Field& from = records_->fields()[field];
  Feed feed;
  feed.field = field;
  feed.elements = RowElements(to);
  if (Elements(from.shape) != feed.elements) {
    return InvalidArgument("\"" + to.name + "\" takes " + to.Text() + ", " + std::to_string(feed.elements) +
                           " numbers a row; the field " + from.Text() + " of " + records_->path() + " has " +
                           std::to_string(Elements(from.shape)));
  }
  const bool number = to.type == DataType::kFp32 || to.type == DataType::kInt64 || to.type == DataType::kInt32;
  if (from.type == to.type || number) return feed;
  return Unimplemented("\"" + to.name + "\" takes " + to.Text() + "; the field " + from.Text() +
                       " cannot be turned into that");
}

Status RecordSource::Prepare(const Wanted& wanted) {
  wanted_ = wanted;
  inputs_.clear();
  for (const auto& spec : wanted.inputs) {
    ASSIGN_OR_RETURN(const std::size_t field, FieldOf(spec, wanted.inputs.size()));
    ASSIGN_OR_RETURN(Feed feed, Match(field, spec));
    feed.scale = records_->fields()[field].type == DataType::kUint8 && spec.type == DataType::kFp32;
    inputs_.push_back(feed);
  }
  const auto y = records_->FieldIndex("y");
  const auto teacher = records_->FieldIndex("teacher");
  const auto target = wanted.loss == gradient::Loss::kDistillation && teacher ? teacher : y;
  if (!target) {
    std::string have;
    for (const auto& f : records_->fields()) have += (have.empty() ? "" : ", ") + f.Text();
    return InvalidArgument(records_->path() + " has nothing to learn: no field y; it has " + have);
  }
  const data::Field& from = records_->fields()[*target];
  if (wanted.loss == gradient::Loss::kSoftmaxCrossEntropyDense && Elements(from.shape) == 1 &&
      RowElements(wanted.target) > 1) {
    target_ = Feed{*target, RowElements(wanted.target), true, false};
  } else {
    ASSIGN_OR_RETURN(target_, Match(*target, wanted.target));
  }
  label_.reset();
  if (wanted.label) {
    const auto named = records_->FieldIndex("label");
    const auto label = named ? named : y;
    if (!label || *label == *target)
      return InvalidArgument(records_->path() + " has no labels beside the teacher's answers (a field label or y)");
    Spec spec{"label", DataType::kInt64, {-1}};
    if (wanted.target.shape.size() > 2)
      spec.shape.insert(spec.shape.end(), wanted.target.shape.begin() + 1, wanted.target.shape.end() - 1);
    ASSIGN_OR_RETURN(label_, Match(*label, spec));
  }
  if (options_.mirror) {
    const auto& shape = records_->fields()[inputs_[0].field].shape;
    if (shape.size() < 2 || shape.size() > 3 || wanted.inputs[0].type != DataType::kFp32)
      return InvalidArgument("only images can be mirrored, rows here are " +
                             records_->fields()[inputs_[0].field].Text());
  }
  return {};
}

void RecordSource::Order(const Pass& pass) {
  if (pass_ && *pass_ == pass) return;
  // Only the order changes: a window that is loaded stays when all rows are in it.
  if (windows_ > 1) loaded_ = -1;
  pass_ = pass;
  Random random = Random(pass.seed).Fork(static_cast<std::uint64_t>(pass.epoch) + 1);
  block_order_.resize(static_cast<std::size_t>(blocks_));
  std::iota(block_order_.begin(), block_order_.end(), 0);
  if (options_.shuffle && windows_ > 1 && !records_->sequential()) random.Shuffle(block_order_);
  after_blocks_ = random;
  window_begin_.assign(1, 0);
  for (std::int64_t w = 0; w < windows_; ++w) {
    std::int64_t rows = 0;
    for (std::int64_t b = w * window_blocks_; b < std::min(blocks_, (w + 1) * window_blocks_); ++b)
      rows += BlockRows(block_order_[static_cast<std::size_t>(b)]);
    window_begin_.push_back(window_begin_.back() + rows);
  }
}

Status RecordSource::CheckLoaded(std::int64_t first_row, std::int64_t at, std::int64_t rows) const {
  for (std::size_t f = 0; f < rows_.size(); ++f) {
    const data::Field& field = records_->fields()[f];
    const std::int64_t elements = Elements(field.shape);
    const std::span<const std::byte> bytes(rows_[f].data() + static_cast<std::size_t>(at) * field.row_bytes(),
                                           static_cast<std::size_t>(rows) * field.row_bytes());
    const bool used = std::any_of(inputs_.begin(), inputs_.end(), [&](const Feed& i) { return i.field == f; }) ||
                      target_->field == f || (label_ && label_->field == f);
    if (!used) continue;
    if ((field.type == DataType::kFp32 || field.type == DataType::kFp64) &&
        !tensor::CheckFinite(field.name, {field.type, {}, bytes}).ok()) {
      for (std::int64_t i = 0; i < rows * elements; ++i) {
        const double v = field.type == DataType::kFp32 ? reinterpret_cast<const float*>(bytes.data())[i]
                                                       : reinterpret_cast<const double*>(bytes.data())[i];
        if (!std::isfinite(v)) {
          return InvalidArgument(records_->Where(first_row + i / elements) + ": number " +
                                 std::to_string(i % elements) + " of " + field.name + " is " +
                                 (std::isnan(v) ? "NaN" : "infinite") + "; every number must be finite");
        }
      }
    }
    // What becomes an integer must be whole; what is a class must be one of them.
    const bool is_class = (target_->field == f && (target_->one_hot || wanted_.target.type == DataType::kInt64)) ||
                          (label_ && label_->field == f);
    bool whole = is_class;
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      whole = whole || (inputs_[i].field == f && wanted_.inputs[i].type != DataType::kFp32);
    if (!whole || (!is_class && IsInteger(field.type))) continue;
    for (std::int64_t i = 0; i < rows * elements; ++i) {
      const auto v = WholeNumber(field.type, bytes.data(), i);
      const bool good = v && (!is_class || (*v >= 0 && (wanted_.classes == 0 || *v < wanted_.classes)));
      if (good) continue;
      const std::string text = NumberText(field.type, bytes.data(), i);
      return InvalidArgument(records_->Where(first_row + i / elements) + ": " +
                             (is_class
                                  ? "label " + text + " is out of range: the model has " +
                                        (wanted_.classes > 0 ? std::to_string(wanted_.classes) : std::string("no")) +
                                        " classes, from 0 on"
                                  : field.name + " " + text + " is no whole number"));
    }
  }
  return {};
}

Status RecordSource::Load(std::int64_t window) {
  const Pass pass = *pass_;
  const bool there = loaded_ == window;
  if (there && shuffled_ && *shuffled_ == pass) return {};
  const std::int64_t rows =
      window_begin_[static_cast<std::size_t>(window) + 1] - window_begin_[static_cast<std::size_t>(window)];
  if (!there) {
    loaded_ = -1;
    const std::int64_t begin = window * window_blocks_;
    block_of_.assign(block_order_.begin() + begin, block_order_.begin() + std::min(blocks_, begin + window_blocks_));
    for (std::size_t f = 0; f < rows_.size(); ++f)
      rows_[f].resize(static_cast<std::size_t>(rows) * records_->fields()[f].row_bytes());
    std::vector<std::span<std::byte>> out(rows_.size());
    std::int64_t at = 0;
    for (const std::int64_t block : block_of_) {
      const std::int64_t n = BlockRows(block);
      for (std::size_t f = 0; f < rows_.size(); ++f) {
        const std::size_t row = records_->fields()[f].row_bytes();
        out[f] = std::span(rows_[f]).subspan(static_cast<std::size_t>(at) * row, static_cast<std::size_t>(n) * row);
      }
      RETURN_IF_ERROR(records_->Read(first_ + block * block_rows_, n, out));
      RETURN_IF_ERROR(CheckLoaded(first_ + block * block_rows_, at, n));
      at += n;
    }
    loaded_ = window;
  }
  // One window continues the stream of the blocks, as a shuffle of all rows would; several have each their own.
  Random random = windows_ == 1 ? after_blocks_ : after_blocks_.Fork(static_cast<std::uint64_t>(window) + 1);
  row_order_.resize(static_cast<std::size_t>(rows));
  std::iota(row_order_.begin(), row_order_.end(), 0u);
  if (options_.shuffle) random.Shuffle(row_order_);
  mirrored_.assign(options_.mirror ? static_cast<std::size_t>(rows) : 0, false);
  for (std::size_t i = 0; i < mirrored_.size(); ++i) mirrored_[i] = random.Below(2) == 1;
  shuffled_ = pass;
  return {};
}

Status RecordSource::Put(const Feed& feed, std::int64_t row, const tensor::MutableView& to, std::int64_t at) const {
  const data::Field& field = records_->fields()[feed.field];
  const std::size_t row_bytes = field.row_bytes();
  const std::byte* const from = rows_[feed.field].data() + static_cast<std::size_t>(row) * row_bytes;
  const auto elements = static_cast<std::size_t>(feed.elements);
  const std::size_t begin = static_cast<std::size_t>(at) * elements;
  if (feed.one_hot) {
    const auto out = to.As<float>().subspan(begin, elements);
    std::fill(out.begin(), out.end(), 0.f);
    out[static_cast<std::size_t>(WholeNumber(field.type, from, 0).value_or(0))] = 1;
    return {};
  }
  if (field.type == to.type) {
    std::memcpy(to.bytes.data() + begin * tensor::SizeOf(to.type), from, row_bytes);
    return {};
  }
  if (to.type == DataType::kFp32) {
    const auto out = to.As<float>().subspan(begin, elements);
    data::Widen({field.type, {}, {from, row_bytes}}, out);
    if (feed.scale) {
      for (float& v : out) v /= 255;
    }
    return {};
  }
  for (std::size_t i = 0; i < elements; ++i) {
    const std::int64_t v = WholeNumber(field.type, from, static_cast<std::int64_t>(i)).value_or(0);
    if (to.type == DataType::kInt64) {
      to.As<long>()[begin + i] = v;
    } else {
      if (v < INT32_MIN || v > INT32_MAX)
        return InvalidArgument(records_->path() + ": " + field.name + " " + std::to_string(v) + " is no INT32");
      to.As<int>()[begin + i] = static_cast<int>(v);
    }
  }
  return {};
}

void RecordSource::Mirror(const tensor::MutableView& to, std::int64_t at) const {
  const auto& shape = records_->fields()[inputs_[0].field].shape;
  const auto elements = static_cast<std::size_t>(inputs_[0].elements);
  const auto row = to.As<float>().subspan(static_cast<std::size_t>(at) * elements, elements);
  // [height, width], [channels, height, width] or [height, width, channels].
  const bool channels_last = shape.size() == 3 && (shape[2] == 1 || shape[2] == 3) && shape[0] != 1 && shape[0] != 3;
  const auto pixel = static_cast<std::size_t>(channels_last ? shape[2] : 1);
  const auto width = static_cast<std::size_t>(channels_last ? shape[1] : shape.back());
  for (std::size_t line = 0; line < elements; line += width * pixel) {
    for (std::size_t i = 0; i < width / 2; ++i) {
      float* const left = row.data() + line + i * pixel;
      std::swap_ranges(left, left + pixel, row.data() + line + (width - 1 - i) * pixel);
    }
  }
}

Status RecordSource::Fill(const Pass& pass, std::int64_t begin, std::int64_t rows, const Batch& batch) {
  GANGLION_CHECK(target_ && begin >= 0 && rows >= 0 && begin + rows <= count_);
  Order(pass);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto after = std::upper_bound(window_begin_.begin(), window_begin_.end(), begin + r);
    const std::int64_t window = after - window_begin_.begin() - 1;
    RETURN_IF_ERROR(Load(window));
    const std::int64_t example = begin + r - window_begin_[static_cast<std::size_t>(window)];
    const std::int64_t row = row_order_[static_cast<std::size_t>(example)];
    for (std::size_t i = 0; i < inputs_.size(); ++i) RETURN_IF_ERROR(Put(inputs_[i], row, batch.inputs[i], r));
    if (options_.mirror && mirrored_[static_cast<std::size_t>(example)]) Mirror(batch.inputs[0], r);
    RETURN_IF_ERROR(Put(*target_, row, batch.target, r));
    if (label_) RETURN_IF_ERROR(Put(*label_, row, batch.label, r));
  }
  return {};
}

}  // namespace ganglion::training
