#include "node/input_file.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/data.h"
#include "wire/json.h"

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Tensor;

// Numbers a row of the input has, or -1 where the file leaves it open.
std::int64_t RowSize(const tensor::Spec& spec) {
  std::int64_t n = 1;
  for (std::size_t i = 1; i < spec.shape.size(); ++i) n = spec.shape[i] < 0 || n < 0 ? -1 : n * spec.shape[i];
  return n;
}

// `t` as rows of the input: same datatype, and a shape that matches.
Result<Tensor> Fit(const tensor::Spec& spec, const Tensor& t) {
  const auto refuse = [&] {
    return InvalidArgument(fmt::format("the file holds {}{}, input \"{}\" wants {}; reshape, or set pre",
                                       tensor::Name(t.type()), tensor::ShapeText(t.shape()), spec.name, spec.Text()));
  };
  Tensor numbers = t;
  if (t.type() != spec.type) {
    if (spec.type == DataType::kBytes || t.type() == DataType::kBytes) return refuse();
    ASSIGN_OR_RETURN(numbers, data::ToFp32(t));
    if (t.type() == DataType::kUint8 && spec.type == DataType::kFp32) {
      for (float& v : numbers.As<float>()) v /= 255;
    }
    ASSIGN_OR_RETURN(numbers, data::FromFp32(numbers, spec.type));
  }
  if (tensor::Matches(spec, numbers.View()).ok()) return numbers;
  const std::int64_t row = RowSize(spec);
  ASSIGN_OR_RETURN(const std::int64_t count, tensor::ElementCount(t.shape()));
  if (row <= 0 || count == 0 || count % row != 0) return refuse();
  // One row without its batch dimension, or rows whose inner shape is another view of the same numbers.
  const std::int64_t rows = count / row;
  if (rows != 1 && t.shape()[0] != rows) return refuse();
  tensor::Shape shape = spec.shape;
  shape[0] = rows;
  return Tensor::FromBytes(spec.type, shape, numbers.View().bytes);
}

Status Flatten(const wire::Json& j, std::vector<float>* numbers, tensor::Shape* shape, std::size_t depth) {
  if (j.is_number()) {
    const double v = j.get<double>();
    if (!std::isfinite(static_cast<float>(v))) return InvalidArgument("a number is too large for FP32");
    numbers->push_back(static_cast<float>(v));
    return depth == shape->size() ? Status() : InvalidArgument("lists of different depth");
  }
  if (!j.is_array()) return InvalidArgument("only numbers and lists of numbers are inputs");
  const auto size = static_cast<std::int64_t>(j.size());
  if (depth == shape->size()) {
    if (!numbers->empty()) return InvalidArgument("lists of different depth");
    shape->push_back(size);
  } else if ((*shape)[depth] != size) {
    return InvalidArgument(fmt::format("a list of {} beside one of {}", size, (*shape)[depth]));
  }
  for (const auto& e : j) RETURN_IF_ERROR(Flatten(e, numbers, shape, depth + 1));
  return {};
}

Result<Tensor> FromJson(const wire::Json& j) {
  std::vector<float> numbers;
  tensor::Shape shape;
  RETURN_IF_ERROR(Flatten(j, &numbers, &shape, 0));
  return Tensor::From<float>(shape, numbers);
}

Result<std::vector<Tensor>> FromImage(const DecisionConfig& config, std::span<const std::byte> bytes) {
  if (config.inputs.size() != 1)
    return InvalidArgument(fmt::format("an image is one input, {} takes {}", config.name, config.inputs.size()));
  const auto& spec = config.inputs[0];
  const std::int64_t row = RowSize(spec);
  std::string seen;
  for (const int channels : {1, 3}) {
    ASSIGN_OR_RETURN(const Tensor image, data::ParseImage(bytes, channels));
    const auto& s = image.shape();
    seen = fmt::format("{}x{}", s[1], s[0]);
    if (s[0] * s[1] * channels != row) continue;
    // Where the input says height and width, as many pixels in another form will not do.
    const std::size_t rank = spec.shape.size();
    const std::size_t first = rank == 4 && spec.shape[1] == channels ? 2 : 1;
    if (rank >= 3 && (spec.shape[first] != s[0] || spec.shape[first + 1] != s[1])) continue;
    // Channels last as decoded; first where the input says so.
    if (channels == 3 && spec.shape.size() == 4 && spec.shape[1] == 3) {
      ASSIGN_OR_RETURN(Tensor planes, Tensor::Zeros(DataType::kUint8, {3, s[0], s[1]}));
      const auto from = image.As<unsigned char>();
      const auto to = planes.As<unsigned char>();
      const std::size_t pixels = from.size() / 3;
      for (std::size_t i = 0; i < from.size(); ++i) to[(i % 3) * pixels + i / 3] = from[i];
      ASSIGN_OR_RETURN(auto fit, Fit(spec, planes));
      return std::vector<Tensor>{std::move(fit)};
    }
    ASSIGN_OR_RETURN(auto fit, Fit(spec, image));
    return std::vector<Tensor>{std::move(fit)};
  }
  return InvalidArgument(fmt::format("the image has {} pixels, input \"{}\" wants {}; resize the image, or set pre",
                                     seen, spec.name, spec.Text()));
}

Result<std::vector<Tensor>> Load(const DecisionConfig& config, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, data::ReadFile(path));
  const auto bytes = std::as_bytes(std::span(content));
  std::string extension = std::filesystem::path(path).extension();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (extension == ".json") return ParseJsonInputs(config, content);
  if (extension == ".png" || extension == ".jpg" || extension == ".jpeg") return FromImage(config, bytes);
  std::vector<Tensor> inputs;
  if (extension == ".npz") {
    ASSIGN_OR_RETURN(auto npz, data::ParseNpz(bytes));
    for (const auto& spec : config.inputs) {
      const bool x = config.inputs.size() == 1 && !npz.arrays.contains(spec.name) && npz.arrays.contains("x");
      ASSIGN_OR_RETURN(const auto array, data::Take(npz, x ? "x" : spec.name));
      ASSIGN_OR_RETURN(auto fit, Fit(spec, array));
      inputs.push_back(std::move(fit));
    }
    return inputs;
  }
  if (config.inputs.size() != 1)
    return InvalidArgument(
        fmt::format("{} takes {} inputs; give them as .npz or .json", config.name, config.inputs.size()));
  Tensor t;
  if (extension == ".npy") {
    ASSIGN_OR_RETURN(t, data::ParseNpy(bytes));
  } else if (extension == ".csv") {
    ASSIGN_OR_RETURN(auto table, data::ParseCsv(content));
    t = std::move(table.values);
    // The label column is no input, unless the decision takes that many numbers.
    const auto label = data::NamedLabelColumn(table);
    const auto columns = static_cast<std::size_t>(t.shape()[1]);
    if (label && RowSize(config.inputs[0]) != static_cast<std::int64_t>(columns)) {
      std::vector<float> kept;
      for (std::size_t i = 0; i < t.As<float>().size(); ++i) {
        if (i % columns != *label) kept.push_back(t.As<float>()[i]);
      }
      ASSIGN_OR_RETURN(t, Tensor::From<float>({t.shape()[0], static_cast<std::int64_t>(columns - 1)}, kept));
    }
  } else {
    return InvalidArgument("\"" + extension +
                           "\" is no input this version reads; .npy, .npz, .csv, .json, .png and .jpg are");
  }
  ASSIGN_OR_RETURN(auto fit, Fit(config.inputs[0], t));
  inputs.push_back(std::move(fit));
  return inputs;
}

}  // namespace

Result<std::vector<Tensor>> ParseJsonInputs(const DecisionConfig& config, const std::string& text) {
  wire::Json j;
  RETURN_IF_ERROR(wire::ParseJson(text, &j));
  std::vector<Tensor> inputs;
  if (!j.is_object()) {
    if (config.inputs.size() != 1)
      return InvalidArgument(
          fmt::format("{} takes {} inputs; write {{\"inputs\": [...]}}", config.name, config.inputs.size()));
    ASSIGN_OR_RETURN(const Tensor t, FromJson(j));
    ASSIGN_OR_RETURN(auto fit, Fit(config.inputs[0], t));
    inputs.push_back(std::move(fit));
    return inputs;
  }
  ASSIGN_OR_RETURN(const wire::Json* list, wire::GetArray(j, "inputs"));
  for (const auto& spec : config.inputs) {
    const wire::Json* found = nullptr;
    for (const auto& e : *list) {
      ASSIGN_OR_RETURN(const std::string name, wire::GetString(e, "name"));
      if (name == spec.name) found = &e;
    }
    if (found == nullptr) return InvalidArgument(fmt::format("input \"{}\" is missing", spec.name));
    if (found->contains("datatype")) {
      ASSIGN_OR_RETURN(const std::string type, wire::GetString(*found, "datatype"));
      if (type != tensor::Name(spec.type))
        return InvalidArgument(fmt::format("input \"{}\" says it is {}, want {}", spec.name, type, spec.Text()));
    }
    ASSIGN_OR_RETURN(const wire::Json* values, wire::GetArray(*found, "data"));
    ASSIGN_OR_RETURN(Tensor t, FromJson(*values));
    if (found->contains("shape")) {
      ASSIGN_OR_RETURN(const wire::Json* dims, wire::GetArray(*found, "shape"));
      tensor::Shape shape;
      for (const auto& d : *dims) {
        if (!d.is_number_integer()) return InvalidArgument("a shape is a list of integers");
        shape.push_back(d.get<std::int64_t>());
      }
      ASSIGN_OR_RETURN(t, Tensor::FromBytes(DataType::kFp32, shape, t.View().bytes));
    }
    ASSIGN_OR_RETURN(auto fit, Fit(spec, t));
    inputs.push_back(std::move(fit));
  }
  return inputs;
}

Result<std::vector<Tensor>> LoadInputs(const DecisionConfig& config, const std::string& path) {
  auto inputs = Load(config, path);
  if (!inputs.ok()) {
    const auto& s = inputs.status();
    return s.message().find(path) == std::string::npos ? s.Within(path) : s;
  }
  for (std::size_t i = 1; i < inputs->size(); ++i) {
    if ((*inputs)[i].shape()[0] != (*inputs)[0].shape()[0]) {
      return InvalidArgument(fmt::format("{}: input \"{}\" has {} rows, \"{}\" has {}", path, config.inputs[i].name,
                                         (*inputs)[i].shape()[0], config.inputs[0].name, (*inputs)[0].shape()[0]));
    }
  }
  return inputs;
}

}  // namespace ganglion::node
