#include "shrinking/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/slim.h"
#include "tensor/tensor.h"

namespace ganglion::shrinking {
namespace {

constexpr std::int64_t kBatch = 200;

// Rows [begin, end) as the model takes them. `shape` must outlive the view.
tensor::View RowsFor(const tensor::Spec& input, const data::Dataset& rows, std::int64_t begin, std::int64_t end,
                     tensor::Shape* shape) {
  *shape = input.shape;
  (*shape)[0] = end - begin;
  const auto line = static_cast<std::size_t>(rows.features()) * sizeof(float);
  return {tensor::DataType::kFp32, *shape,
          rows.x.View().bytes.subspan(static_cast<std::size_t>(begin) * line,
                                      static_cast<std::size_t>(end - begin) * line)};
}

Result<std::unique_ptr<runtime::Session>> Open(const std::shared_ptr<runtime::Engine>& engine,
                                               const onnx::ModelProto& proto, const std::string& name) {
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(name, graph::Serialize(proto)));
  return runtime::Session::Create(engine, model, {.optimise = runtime::SessionOptions::Optimise::kBasic});
}

// Sums of a tensor [rows, channels, places], a channel.
struct Moments {
  std::vector<double> sum;
  std::vector<double> squares;
  double seen = 0;  // numbers a channel

  // Refuses other channels than before.
  Status Add(const tensor::Tensor& t, const std::string& where) {
    const auto& s = t.shape();
    if (s.size() != 3 || (!sum.empty() && static_cast<std::size_t>(s[1]) != sum.size()))
      return InvalidArgument(where + ": what enters it has another number of channels than its parameters");
    const auto channels = static_cast<std::size_t>(s[1]);
    const auto places = static_cast<std::size_t>(s[2]);
    sum.resize(channels, 0);
    squares.resize(channels, 0);
    const auto v = t.As<float>();
    for (std::size_t i = 0; i < v.size(); ++i) {
      const std::size_t c = i / places % channels;
      sum[c] += v[i];
      squares[c] += static_cast<double>(v[i]) * v[i];
    }
    seen += static_cast<double>(s[0]) * static_cast<double>(places);
    return {};
  }
  double Mean(std::size_t c) const { return sum[c] / seen; }
  double Variance(std::size_t c) const { return std::max(squares[c] / seen - Mean(c) * Mean(c), 0.); }
};

Status Stopped() { return Cancelled("stopped while measuring"); }

}  // namespace

Status CheckShape(const model::Model& model, std::int64_t features) {
  const auto& sig = model.signature();
  const auto refuse = [&](const std::string& want) {
    return InvalidArgument(model.name() + ": shrinking takes models with " + want + ", this one is " + sig.Text());
  };
  if (sig.inputs.size() != 1 || sig.inputs[0].type != tensor::DataType::kFp32 || sig.inputs[0].shape.size() < 2 ||
      sig.inputs[0].shape[0] != -1) {
    return refuse("one input FP32[-1,...]");
  }
  std::int64_t row = 1;
  for (std::size_t d = 1; d < sig.inputs[0].shape.size(); ++d) {
    const std::int64_t n = sig.inputs[0].shape[d];
    if (n < 1 || n > features) return refuse(std::to_string(features) + " numbers a row, as the data have");
    row *= n;
  }
  if (row != features) return refuse(std::to_string(features) + " numbers a row, as the data have");
  const auto& out = sig.outputs[0];
  if (out.type != tensor::DataType::kFp32 || out.shape.size() != 2 || out.shape[1] < 1)
    return refuse("a first output FP32[-1,classes]");
  return {};
}

Result<double> MeasureAccuracy(const runtime::Session& session, const data::Dataset& rows, bool together,
                               const std::stop_token& stop) {
  if (rows.labels.empty() || rows.rows() == 0) return InvalidArgument("accuracy needs labelled rows");
  const std::int64_t batch = together ? kBatch : 1;
  std::int64_t right = 0;
  for (std::int64_t begin = 0; begin < rows.rows(); begin += batch) {
    if (stop.stop_requested()) return Stopped();
    tensor::Shape shape;
    const auto view = RowsFor(session.signature().inputs[0], rows, begin, std::min(begin + batch, rows.rows()), &shape);
    ASSIGN_OR_RETURN(const auto out, session.Run({&view, 1}));
    if (out[0].type() != tensor::DataType::kFp32) return InvalidArgument(session.name() + ": its output is not FP32");
    const auto y = out[0].As<float>();
    const auto k = y.size() / static_cast<std::size_t>(shape[0]);
    if (k == 0 || y.size() != k * static_cast<std::size_t>(shape[0]))
      return InvalidArgument(session.name() + ": its output has no row for each row of its input");
    for (std::size_t i = 0; i < static_cast<std::size_t>(shape[0]); ++i) {
      const auto row = y.subspan(i * k, k);
      for (const float v : row) {
        if (!std::isfinite(v)) return FailedPrecondition(session.name() + ": its output is not finite");
      }
      right +=
          std::max_element(row.begin(), row.end()) - row.begin() == rows.labels[static_cast<std::size_t>(begin) + i];
    }
  }
  return static_cast<double>(right) / static_cast<double>(rows.rows());
}

Result<std::vector<stats::Summary>> MeasureLatencies(const std::vector<const runtime::Session*>& sessions,
                                                     const data::Dataset& rows, int rounds, double seconds,
                                                     const std::stop_token& stop) {
  constexpr int kWarm = 10;
  constexpr int kLeast = 50;
  struct Bench {
    tensor::Tensor x;
    tensor::Tensor y;
    std::unique_ptr<runtime::Binding> binding;
    std::vector<double> times;
  };
  std::vector<Bench> benches(sessions.size());
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    const auto& sig = sessions[i]->signature();
    tensor::Shape shape;
    const auto view = RowsFor(sig.inputs[0], rows, 0, 1, &shape);
    ASSIGN_OR_RETURN(benches[i].x, tensor::Tensor::FromBytes(view.type, shape, view.bytes));
    ASSIGN_OR_RETURN(benches[i].y, tensor::Tensor::Zeros(sig.outputs[0].type, {1, sig.outputs[0].shape[1]}));
    ASSIGN_OR_RETURN(auto binding, sessions[i]->Bind({{sig.inputs[0].name, benches[i].x.View()}},
                                                     {{sig.outputs[0].name, benches[i].y.Mutable()}}));
    benches[i].binding = std::make_unique<runtime::Binding>(std::move(binding));
  }
  const auto begin = std::chrono::steady_clock::now();
  for (int round = -kWarm; round < rounds; ++round) {
    const std::int64_t row = (round + kWarm) % rows.rows();
    for (auto& b : benches) {
      if (stop.stop_requested()) return Stopped();
      const auto line = rows.Row(row);
      std::copy(line.begin(), line.end(), b.x.As<float>().begin());
      const auto from = std::chrono::steady_clock::now();
      RETURN_IF_ERROR(b.binding->Run());
      if (round >= 0)
        b.times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count());
    }
    const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (round >= kLeast && passed > seconds) break;
  }
  std::vector<stats::Summary> out;
  out.reserve(benches.size());
  for (auto& b : benches) out.push_back(stats::Summarize(std::move(b.times)));
  return out;
}

Result<std::map<std::string, shrink::RangeObserver>> Observe(const std::shared_ptr<runtime::Engine>& engine,
                                                             const onnx::ModelProto& model,
                                                             const shrink::QuantiseOptions& options,
                                                             const data::Dataset& rows, std::int64_t count,
                                                             const std::stop_token& stop) {
  onnx::ModelProto observed;
  ASSIGN_OR_RETURN(const auto names, shrink::PlanCalibration(model, options, &observed));
  ASSIGN_OR_RETURN(const auto session, Open(engine, observed, "calibration"));
  count = std::min(count, rows.rows());
  if (count < 1) return InvalidArgument("calibration needs at least one row");
  std::map<std::string, shrink::RangeObserver> observers;
  constexpr std::int64_t kFew = 32;  // every watched tensor of the batch is held at once
  for (std::int64_t begin = 0; begin < count; begin += kFew) {
    if (stop.stop_requested()) return Stopped();
    tensor::Shape shape;
    const auto view = RowsFor(session->signature().inputs[0], rows, begin, std::min(begin + kFew, count), &shape);
    ASSIGN_OR_RETURN(const auto out, session->Run({&view, 1}));
    for (std::size_t i = 0; i < names.size(); ++i) observers[names[i]].Observe(out[i].As<float>());
  }
  return observers;
}

Result<std::map<std::string, shrink::Range>> FindRanges(const std::map<std::string, shrink::RangeObserver>& observers,
                                                        shrink::RangeRule rule, double percentile) {
  std::map<std::string, shrink::Range> ranges;
  for (const auto& [name, observer] : observers) {
    ASSIGN_OR_RETURN(ranges[name], observer.Find(rule, percentile, name));
  }
  return ranges;
}

Status MeasureNorms(const std::shared_ptr<runtime::Engine>& engine, const data::Dataset& rows, std::int64_t count,
                    const std::stop_token& stop, onnx::ModelProto* model) {
  onnx::ModelProto observed;
  ASSIGN_OR_RETURN(const auto norms, shrink::FindNorms(*model, &observed));
  count = std::min(count, rows.rows());
  // A norm's input depends on the norms before it, so they are measured one after the other.
  for (std::size_t k = 0; k < norms.size(); ++k) {
    ASSIGN_OR_RETURN(const auto unused, shrink::FindNorms(*model, &observed));
    (void)unused;
    ASSIGN_OR_RETURN(const auto session, Open(engine, observed, "statistics"));
    Moments moments;
    moments.sum.resize(static_cast<std::size_t>(norms[k].channels), 0);
    for (std::int64_t begin = 0; begin < count; begin += kBatch) {
      if (stop.stop_requested()) return Stopped();
      tensor::Shape shape;
      const auto view = RowsFor(session->signature().inputs[0], rows, begin, std::min(begin + kBatch, count), &shape);
      ASSIGN_OR_RETURN(const auto out, session->Run({&view, 1}));
      RETURN_IF_ERROR(moments.Add(out[k], norms[k].node));
    }
    auto mean = tensor::Tensor::Zeros(tensor::DataType::kFp32, {norms[k].channels});
    auto variance = tensor::Tensor::Zeros(tensor::DataType::kFp32, {norms[k].channels});
    if (!mean.ok() || !variance.ok() || moments.seen == 0)
      return InvalidArgument(norms[k].node + ": nothing to measure");
    for (std::size_t c = 0; c < moments.sum.size(); ++c) {
      mean->As<float>()[c] = static_cast<float>(moments.Mean(c));
      variance->As<float>()[c] = static_cast<float>(moments.Variance(c));
    }
    for (auto& t : *model->mutable_graph()->mutable_initializer()) {
      const tensor::Tensor* with = t.name() == norms[k].mean       ? &*mean
                                   : t.name() == norms[k].variance ? &*variance
                                                                   : nullptr;
      if (with == nullptr) continue;
      const std::string name = t.name();
      t.Clear();
      graph::FromTensor(name, with->View(), &t);
    }
  }
  return {};
}

Result<std::vector<shrink::LayerInputs>> MeasureInputs(const std::shared_ptr<runtime::Engine>& engine,
                                                       const onnx::ModelProto& model, const data::Dataset& rows,
                                                       std::int64_t count, const std::stop_token& stop) {
  onnx::ModelProto observed;
  ASSIGN_OR_RETURN(const auto parameters, shrink::PlanInputs(model, &observed));
  std::vector<shrink::LayerInputs> inputs;
  if (parameters.empty()) return inputs;
  ASSIGN_OR_RETURN(const auto session, Open(engine, observed, "inputs of layers"));
  std::vector<Moments> moments(parameters.size());
  count = std::min(count, rows.rows());
  for (std::int64_t begin = 0; begin < count; begin += kBatch) {
    if (stop.stop_requested()) return Stopped();
    tensor::Shape shape;
    const auto view = RowsFor(session->signature().inputs[0], rows, begin, std::min(begin + kBatch, count), &shape);
    ASSIGN_OR_RETURN(const auto out, session->Run({&view, 1}));
    for (std::size_t i = 0; i < moments.size(); ++i) RETURN_IF_ERROR(moments[i].Add(out[i], parameters[i]));
  }
  for (std::size_t i = 0; i < moments.size(); ++i) {
    if (moments[i].seen == 0) continue;
    shrink::LayerInputs in;
    in.parameter = parameters[i];
    for (std::size_t c = 0; c < moments[i].sum.size(); ++c) {
      in.mean.push_back(static_cast<float>(moments[i].Mean(c)));
      in.deviation.push_back(static_cast<float>(std::sqrt(moments[i].Variance(c))));
    }
    inputs.push_back(std::move(in));
  }
  return inputs;
}

Result<double> Difference(const std::shared_ptr<runtime::Engine>& engine, const onnx::ModelProto& a,
                          const onnx::ModelProto& b, const data::Dataset& rows, std::int64_t count) {
  ASSIGN_OR_RETURN(const auto first, Open(engine, a, "first"));
  ASSIGN_OR_RETURN(const auto second, Open(engine, b, "second"));
  tensor::Shape shape;
  const auto view = RowsFor(first->signature().inputs[0], rows, 0, std::min(count, rows.rows()), &shape);
  ASSIGN_OR_RETURN(const auto x, first->Run({&view, 1}));
  ASSIGN_OR_RETURN(const auto y, second->Run({&view, 1}));
  if (x[0].shape() != y[0].shape()) return INFINITY;
  const auto p = x[0].As<float>();
  const auto q = y[0].As<float>();
  double most = 0;
  double top = 1e-12;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double d = std::fabs(static_cast<double>(p[i]) - q[i]);
    if (!(d <= most)) most = d;  // a NaN counts, too
    top = std::max(top, std::fabs(static_cast<double>(p[i])));
  }
  return most / top;
}

}  // namespace ganglion::shrinking
