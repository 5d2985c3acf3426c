#include "shrink/quantise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <unordered_map>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/edit.h"
#include "shrink/layers.h"

namespace ganglion::shrink {
namespace {

using NodeList = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

onnx::NodeProto* Append(NodeList* nodes, const std::string& op, const std::vector<std::string>& inputs,
                        const std::string& output) {
  auto* n = nodes->Add();
  n->set_op_type(op);
  for (const auto& in : inputs) n->add_input(in);
  n->add_output(output);
  return n;
}

void SetInt(onnx::NodeProto* n, const std::string& name, std::int64_t value) {
  auto* a = n->add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::INT);
  a->set_i(value);
}

void SetInt(onnx::TensorProto* t, const std::string& name, int onnx_type, int value) {
  const auto byte = static_cast<std::uint8_t>(value);
  SetBytes(t, name, onnx_type, {}, &byte, 1);
}

// The node without attributes that went into its weights.
onnx::NodeProto WithoutScales(const onnx::NodeProto& n) {
  onnx::NodeProto out = n;
  out.clear_attribute();
  for (const auto& a : n.attribute()) {
    if (a.name() != "alpha" && a.name() != "beta") *out.add_attribute() = a;
  }
  return out;
}

// Writes a QDQ model: the nodes of a plan one by one, with rulers around tensors and behind weights.
class StaticWriter {
 public:
  StaticWriter(const Plan& plan, const QuantiseOptions& options, onnx::ModelProto* out)
      : plan_(plan), options_(options), out_(out->mutable_graph()), names_(plan.model.graph()) {
    *out = plan.model;
    out_->clear_node();
  }

  Status Write(const std::map<std::string, Range>& ranges) {
    const auto& g = plan_.model.graph();
    const Links links(g);
    for (const auto& t : plan_.tensors) {
      if (const auto at = plan_.range_of.find(t); at != plan_.range_of.end()) {
        rulers_[t] = rulers_.at(at->second);  // made before it
        continue;
      }
      const auto range = ranges.find(t);
      if (range == ranges.end()) return InvalidArgument("no calibrated range for tensor \"" + t + "\"");
      if (!std::isfinite(range->second.low) || !std::isfinite(range->second.high) ||
          range->second.low > range->second.high) {
        return InvalidArgument("the range of tensor \"" + t + "\", " + std::to_string(range->second.low) + " to " +
                               std::to_string(range->second.high) + ", is none");
      }
      // What a Relu gives is never below 0; a ruler that says so lets the runtime leave the Relu out.
      const int maker = links.Maker(t);
      const bool positive = maker >= 0 && g.node(maker).op_type() == "Relu";
      AddRuler(t, {positive ? std::max(range->second.low, 0.f) : range->second.low, range->second.high});
    }
    std::unordered_map<int, const Layer*> layers;
    for (const Layer& l : plan_.layers) layers[l.node] = &l;
    std::set<std::string> inputs;
    for (const auto& v : g.input()) inputs.insert(v.name());
    for (const auto& t : plan_.tensors) {
      if (inputs.contains(t)) read_as_[t] = Round(t, names_.Fresh(t + ".rounded"), t);
    }
    for (int i = 0; i < g.node_size(); ++i) {
      onnx::NodeProto n = g.node(i);
      if (const auto at = layers.find(i); at != layers.end()) {
        n = WithoutScales(n);
        RETURN_IF_ERROR(Quantise(*at->second, &n));
        if (const auto rounded = read_as_.find(n.input(0)); rounded != read_as_.end()) n.set_input(0, rounded->second);
      }
      // A tensor with a ruler is made under another name; who reads it by its own reads it rounded.
      std::vector<std::pair<std::string, std::string>> round;
      for (auto& name : *n.mutable_output()) {
        if (!rulers_.contains(name)) continue;
        round.emplace_back(name, names_.Fresh(name + ".raw"));
        name = round.back().second;
      }
      *out_->add_node() = std::move(n);
      for (const auto& [name, raw] : round) Round(raw, name, name);
    }
    DropUnused(out_);
    return {};
  }

 private:
  struct Named {
    Ruler ruler;
    std::string scale;
    std::string zero_point;
  };

  void AddRuler(const std::string& t, Range range) {
    Named r{ActivationRuler(range, options_.signed_activations), names_.Fresh(t + ".scale"),
            names_.Fresh(t + ".zero_point")};
    SetFloats(out_->add_initializer(), r.scale, {}, {r.ruler.scale});
    SetInt(out_->add_initializer(), r.zero_point,
           options_.signed_activations ? onnx::TensorProto::INT8 : onnx::TensorProto::UINT8, r.ruler.zero_point);
    rulers_[t] = std::move(r);
  }

  // Nodes that put `from` on the ruler of `tensor` and back into float as `to`.
  std::string Round(const std::string& from, const std::string& to, const std::string& tensor) {
    const Named& r = rulers_.at(tensor);
    const std::string q = names_.Fresh(tensor + ".q");
    Append(out_->mutable_node(), "QuantizeLinear", {from, r.scale, r.zero_point}, q);
    Append(out_->mutable_node(), "DequantizeLinear", {q, r.scale, r.zero_point}, to);
    return to;
  }

  // The layer's weights and bias as eight-bit initializers, read through DequantizeLinear.
  Status Quantise(const Layer& layer, onnx::NodeProto* n) {
    const Named& input = rulers_.at(n->input(0));
    ASSIGN_OR_RETURN(const EightBits e,
                     ToEightBits(plan_.model.graph(), layer, input.ruler.scale, options_.seven_bit_weights));
    const std::string w = n->input(1);
    auto& known = weights_[w];
    if (known.name.empty() || known.scale != e.scale) {  // shared weights are written once, where scales agree
      known.scale = e.scale;
      const auto channels = static_cast<std::int64_t>(e.scale.size());
      const std::string q = names_.Fresh(w + ".q");
      const std::string scale = names_.Fresh(w + ".scale");
      const std::string zero = names_.Fresh(w + ".zero_point");
      const std::vector<std::int8_t> zeros(e.scale.size(), 0);
      SetBytes(out_->add_initializer(), q, onnx::TensorProto::INT8, e.shape, e.weights.data(), e.weights.size());
      SetFloats(out_->add_initializer(), scale, {channels}, e.scale);
      SetBytes(out_->add_initializer(), zero, onnx::TensorProto::INT8, {channels}, zeros.data(), zeros.size());
      known.name = names_.Fresh(w + ".rounded");
      SetInt(Append(out_->mutable_node(), "DequantizeLinear", {q, scale, zero}, known.name), "axis",
             layer.channel_axis);
    }
    n->set_input(1, known.name);
    if (e.bias.empty()) return {};
    std::vector<float> scale;
    std::vector<std::int32_t> bias;
    for (std::size_t c = 0; c < e.bias.size(); ++c) {
      scale.push_back(input.ruler.scale * e.scale[c]);
      constexpr double kTop = std::numeric_limits<std::int32_t>::max();
      bias.push_back(static_cast<std::int32_t>(std::clamp(std::nearbyint(e.bias[c] / scale[c]), -kTop, kTop)));
    }
    const auto channels = static_cast<std::int64_t>(bias.size());
    const std::string b = n->input(2);
    const std::string q = names_.Fresh(b + ".q");
    const std::string s = names_.Fresh(b + ".scale");
    SetBytes(out_->add_initializer(), q, onnx::TensorProto::INT32, {channels}, bias.data(), bias.size() * 4);
    SetFloats(out_->add_initializer(), s, {channels}, scale);
    n->set_input(2, names_.Fresh(b + ".rounded"));
    SetInt(Append(out_->mutable_node(), "DequantizeLinear", {q, s}, n->input(2)), "axis", 0);
    return {};
  }

  struct Known {
    std::string name;
    std::vector<float> scale;
  };

  const Plan& plan_;
  const QuantiseOptions& options_;
  onnx::GraphProto* out_;
  Names names_;
  std::unordered_map<std::string, Named> rulers_;
  std::unordered_map<std::string, std::string> read_as_;  // an input of the model -> rounded
  std::unordered_map<std::string, Known> weights_;
};

QuantiseReport Report(Plan& plan) {
  QuantiseReport report;
  report.quantised.reserve(plan.layers.size());
  for (Layer& l : plan.layers) report.quantised.push_back(std::move(l.name));
  report.left_float = std::move(plan.left_float);
  return report;
}

// A layer in integer operators, with a ruler made anew in each run.
struct DynamicInput {
  std::string q, scale, zero_point;
};

Status WriteDynamic(const Plan& plan, const Layer& layer, const DynamicInput& x, bool seven_bit, Names& names,
                    onnx::GraphProto* out) {
  const auto& n = plan.model.graph().node(layer.node);
  ASSIGN_OR_RETURN(EightBits e, ToEightBits(plan.model.graph(), layer, 0, seven_bit));
  const bool conv = n.op_type() == "Conv";
  const auto channels = static_cast<std::int64_t>(e.scale.size());
  if (!conv && layer.channel_axis == 0) {  // MatMulInteger knows no transposition
    const auto rows = e.scale.size();
    const auto columns = e.weights.size() / rows;
    std::vector<std::int8_t> turned(e.weights.size());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) turned[c * rows + r] = e.weights[r * columns + c];
    }
    e.weights = std::move(turned);
    e.shape = {static_cast<std::int64_t>(columns), channels};
  }
  tensor::Shape along{channels};  // a number a channel, as it broadcasts over the output
  if (conv) along.insert(along.end(), e.shape.size() - 2, 1);
  const std::string& w = n.input(1);
  const std::string q = names.Fresh(w + ".q");
  const std::string scale = names.Fresh(w + ".scale");
  const std::string zero = names.Fresh(w + ".zero_point");
  SetBytes(out->add_initializer(), q, onnx::TensorProto::INT8, e.shape, e.weights.data(), e.weights.size());
  SetFloats(out->add_initializer(), scale, along, e.scale);
  SetInt(out->add_initializer(), zero, onnx::TensorProto::INT8, 0);
  const std::string& y = n.output(0);
  auto* nodes = out->mutable_node();
  auto* product =
      Append(nodes, conv ? "ConvInteger" : "MatMulInteger", {x.q, q, x.zero_point, zero}, names.Fresh(y + ".integer"));
  if (conv) *product->mutable_attribute() = n.attribute();
  const std::string integer = product->output(0);
  const std::string real = names.Fresh(y + ".float");
  SetInt(Append(nodes, "Cast", {integer}, real), "to", onnx::TensorProto::FLOAT);
  const std::string both = names.Fresh(y + ".scale");
  Append(nodes, "Mul", {x.scale, scale}, both);
  if (e.bias.empty()) {
    Append(nodes, "Mul", {real, both}, y);
    return {};
  }
  const std::string scaled = names.Fresh(y + ".scaled");
  Append(nodes, "Mul", {real, both}, scaled);
  const std::string bias = names.Fresh(n.input(2) + ".vector");
  SetFloats(out->add_initializer(), bias, along, {e.bias.begin(), e.bias.end()});
  Append(nodes, "Add", {scaled, bias}, y);
  return {};
}

}  // namespace

Result<std::vector<std::string>> PlanCalibration(const onnx::ModelProto& model, const QuantiseOptions& options,
                                                 onnx::ModelProto* observed) {
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(model, options));
  *observed = plan.model;
  auto* g = observed->mutable_graph();
  std::set<std::string> names;
  for (const auto& t : plan.tensors) {
    if (!plan.range_of.contains(t)) names.insert(t);
  }
  Names fresh(*g);
  g->clear_output();
  graph::GraphBuilder builder(observed);
  const std::string flat = builder.Ints("flat", {-1});
  std::vector<std::string> watched;
  for (const auto& t : plan.tensors) {
    if (!names.contains(t)) continue;
    const std::string out = builder.Node("Reshape", {t, flat}, {}, fresh.Fresh(t + ".observed"));
    builder.Output({out, tensor::DataType::kFp32, {-1}});
    watched.push_back(t);
  }
  DropUnused(g);
  return watched;
}

Result<QuantiseReport> QuantiseStatic(const onnx::ModelProto& model, const std::map<std::string, Range>& ranges,
                                      const QuantiseOptions& options, onnx::ModelProto* out) {
  ASSIGN_OR_RETURN(Plan plan, MakePlan(model, options));
  RETURN_IF_ERROR(StaticWriter(plan, options, out).Write(ranges));
  return Report(plan);
}

Result<QuantiseReport> QuantiseDynamic(const onnx::ModelProto& model, const QuantiseOptions& options,
                                       onnx::ModelProto* out) {
  ASSIGN_OR_RETURN(Plan plan, MakePlan(model, options));
  const auto& g = plan.model.graph();
  *out = plan.model;
  auto* target = out->mutable_graph();
  target->clear_node();
  Names names(g);
  std::unordered_map<int, const Layer*> layers;
  for (const Layer& l : plan.layers) layers[l.node] = &l;
  std::unordered_map<std::string, DynamicInput> inputs;
  for (int i = 0; i < g.node_size(); ++i) {
    const auto at = layers.find(i);
    if (at == layers.end()) {
      *target->add_node() = g.node(i);
      continue;
    }
    const std::string& x = g.node(i).input(0);
    auto& ruler = inputs[x];
    if (ruler.q.empty()) {
      ruler = {names.Fresh(x + ".q"), names.Fresh(x + ".scale"), names.Fresh(x + ".zero_point")};
      auto* n = Append(target->mutable_node(), "DynamicQuantizeLinear", {x}, ruler.q);
      n->add_output(ruler.scale);
      n->add_output(ruler.zero_point);
    }
    RETURN_IF_ERROR(WriteDynamic(plan, *at->second, ruler, options.seven_bit_weights, names, target));
  }
  DropUnused(target);
  return Report(plan);
}

}  // namespace ganglion::shrink
