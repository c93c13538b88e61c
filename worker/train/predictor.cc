#include "worker/train/predictor.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "common/base/error.h"
#include "common/base/philox.h"

namespace varscope {
namespace {

std::size_t row_bytes(const TensorView& array, std::int64_t rows) {
  return rows == 0 ? 0 : array.n_bytes() / static_cast<std::size_t>(rows);
}

constexpr std::int64_t kProbedIds = 3;  // of each row's bag

// Bags of so many ids, however many those have that will come.
SampleSpec probed(SampleSpec spec) {
  for (InputSpec& input : spec.inputs) input.most = kProbedIds;
  return spec;
}

// Values as a trained network may meet them: numbers around 0, any ids; weights of ids are above 0.
void fill_random(const InputSpec& input, const TensorView& array, std::uint64_t stream) {
  const RandomStream random(stream, RandomPurpose::test, 0);
  const std::int64_t n = array.shape().n_elements();
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    if (array.dtype() == DType::int32) {
      const auto bound = static_cast<std::uint64_t>(std::max<std::int64_t>(1, input.n_ids));
      array.data<std::int32_t>()[i] = static_cast<std::int32_t>(random.below(at, bound));
    } else if (input.features == Features::row_ids) {
      const auto words = random.words(at);
      array.data<std::int64_t>()[i] = static_cast<std::int64_t>(words[0] | std::uint64_t{words[1]} << 32);
    } else if (array.dtype() == DType::int64) {
      array.data<std::int64_t>()[i] = i * kProbedIds;
    } else {
      const double value = input.is_ragged() ? 0.1 + random.uniform(at) : random.normal(at);
      if (array.dtype() == DType::float32) {
        array.data<float>()[i] = static_cast<float>(value);
      } else {
        array.data<double>()[i] = value;
      }
    }
  }
}

// Rows of tables as trained ones may be, of any id: what is read of absent ones may be zeros, and would hide
// the order in which numbers are added.
class RandomRows final : public RowReader {
 public:
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override {
    const std::int64_t units = table.shape()[1];
    const InitialValues values(random_, 17, table.name(), table.shape());
    for (const std::uint64_t id : ids) {
      VariableSpec::fill_row(TensorView(table.dtype(), {units}, out), values, id);
      out += static_cast<std::size_t>(units) * size_of(table.dtype());
    }
  }

 private:
  Initializer random_ = Initializer::normal(0, 1);
};

double number_at(const TensorView& array, std::int64_t i) {
  switch (array.dtype()) {
    case DType::float32:
      return static_cast<double>(array.data<float>()[i]);
    case DType::int32:
      return array.data<std::int32_t>()[i];
    case DType::int64:
      return static_cast<double>(array.data<std::int64_t>()[i]);
    default:
      return array.data<double>()[i];
  }
}

// A value for each row, made of the inputs alone.
void check_is_of_rows(const Model& model, NodeId id) {
  const Graph& graph = model.graph;
  const Graph::Node& node = graph.node(id);
  const Shape& shape = node.type.shape;
  if (shape.rank() == 0 || shape[0] != Shape::kUnknown ||
      with_batch(shape, 1).n_elements() * 2 != with_batch(shape, 2).n_elements())
    fail(ErrorKind::argument, "node \"{}\" is {}: it has no value for each row", node.name, node.type.str());
  std::vector<bool> needed(graph.size(), false);
  needed[static_cast<std::size_t>(id.value)] = true;
  for (int i = id.value; i >= 0; --i) {
    if (!needed[static_cast<std::size_t>(i)]) continue;
    if (NodeId(i) == model.y)
      fail(ErrorKind::argument, "node \"{}\" needs the labels, which are not known of what is predicted",
           node.name);
    for (const NodeId input : graph.node(NodeId(i)).inputs)
      needed[static_cast<std::size_t>(input.value)] = true;
  }
}

std::vector<NodeId> float_inputs(const Model& model, const SampleSpec& spec) {
  std::vector<NodeId> nodes;
  for (std::size_t k = 0; k < spec.inputs.size(); ++k) {
    if (spec.inputs[k].is_ragged())
      fail(ErrorKind::argument, "input \"{}\" is of bags: gradients are of models without them",
           spec.inputs[k].name);
    if (spec.inputs[k].features == Features::real) nodes.push_back(model.inputs[k]);
  }
  if (nodes.empty()) fail(ErrorKind::argument, "the model's inputs are ids: there are no gradients by them");
  return nodes;
}

}  // namespace

Predictor::Predictor(const Model& model, const SampleSpec& spec, DType dtype, const Bind& bind,
                     std::optional<NodeId> node, RowReader* rows, std::optional<std::int64_t> block,
                     Fill fill)
    : model_(model),
      node_(node.value_or(model.output)),
      spec_(probed(spec)),
      dtype_(dtype),
      bind_(bind),
      rows_(rows),
      fill_(fill) {
  check_is_of_rows(model, node_);
  n_outputs_ = with_batch(model.graph.node(node_).type.shape, 1).n_elements();
  if (block) {
    block_ = *block;
    chosen_.push_back(make_block(block_));
    if (fill_ == Fill::cut) all_places_agree(chosen_.front(), std::min<std::int64_t>(2, block_));
    return;
  }
  for (const std::int64_t size : {32, 16, 8, 4, 2, 1}) {
    Block made = make_block(size);
    if (size > 1 && !all_places_agree(made, size)) continue;
    block_ = size;
    chosen_.push_back(std::move(made));
    return;
  }
}

Predictor::Block Predictor::make_block(std::int64_t rows) const {
  Block block{LocalStates(model_.graph, 1, rows, 0),
              Executor(model_.graph, node_, rows, {.also = {}, .forward_only = true}),
              TableFeeds(model_.graph), Batch(spec_, dtype_, rows)};
  bind_(block.executor);
  block.states.bind(block.executor, 0);
  return block;
}

DType Predictor::dtype() const { return model_.graph.node(node_).type.dtype; }

template <class Number>
void Predictor::run(Block& block, RowReader* reader, std::span<const TensorView> inputs, std::int64_t rows,
                    std::vector<Number>& out) const {
  block.executor.set_batch(rows);
  for (std::size_t i = 0; i < model_.inputs.size(); ++i) block.executor.feed(model_.inputs[i], inputs[i]);
  block.tables.read(block.executor, reader);
  for (const Executor::ForwardStep& step : block.executor.forward_steps()) block.executor.forward(step);
  const TensorView& value = block.executor.value(node_);
  for (std::int64_t i = 0; i < rows * n_outputs_; ++i) {
    if constexpr (std::is_same_v<Number, std::int64_t>) {
      out.push_back(value.data<std::int64_t>()[i]);
    } else {
      out.push_back(number_at(value, i));
    }
  }
}

bool Predictor::all_places_agree(Block& block, std::int64_t rows) const {
  const Batch random(spec_, dtype_, rows);
  const BatchView from = random.view(rows), to = block.batch.view(rows);
  for (std::size_t k = 0; k < spec_.inputs.size(); ++k) fill_random(spec_.inputs[k], from.inputs[k], 17 + k);
  std::vector<double> first, moved;
  RandomRows random_rows;
  for (std::int64_t shift = 0; shift < rows; ++shift) {
    for (std::size_t k = 0; k < spec_.inputs.size(); ++k) {
      if (spec_.inputs[k].features == Features::offsets) {
        std::memcpy(to.inputs[k].bytes(), from.inputs[k].bytes(), from.inputs[k].n_bytes());
        continue;
      }
      const std::size_t bytes = row_bytes(from.inputs[k], rows), all = from.inputs[k].n_bytes();
      const std::size_t at = static_cast<std::size_t>(shift) * bytes;
      std::memcpy(to.inputs[k].bytes() + at, from.inputs[k].bytes(), all - at);
      std::memcpy(to.inputs[k].bytes(), from.inputs[k].bytes() + (all - at), at);
    }
    moved.clear();
    run(block, rows_ == nullptr ? nullptr : &random_rows, to.inputs, rows, moved);
    if (shift == 0) {
      first = moved;
      continue;
    }
    std::rotate(moved.begin(), moved.begin() + shift * n_outputs_, moved.end());
    if (std::memcmp(first.data(), moved.data(), first.size() * sizeof(double)) != 0) return false;
  }
  return true;
}

std::vector<double> Predictor::outputs(const BatchView& rows, std::int64_t n) {
  return answers<double>(rows, n);
}

std::vector<std::int64_t> Predictor::ids(const BatchView& rows, std::int64_t n) {
  return answers<std::int64_t>(rows, n);
}

template <class Number>
std::vector<Number> Predictor::answers(const BatchView& rows, std::int64_t n) {
  std::vector<Number> out;
  Block& block = chosen_.front();
  for (std::int64_t begin = 0; begin < n; begin += block_) {
    const std::int64_t here = std::min(block_, n - begin), in_run = fill_ == Fill::cut ? here : block_;
    BatchView to = block.batch.view(in_run);
    for (std::size_t k = 0; k < spec_.inputs.size(); ++k) {
      if (spec_.inputs[k].is_ragged()) {  // offsets say which part is this block's
        to.inputs[k] = rows.inputs[k];
        continue;
      }
      if (spec_.inputs[k].features == Features::offsets) {
        const std::int64_t* offsets = rows.inputs[k].data<std::int64_t>() + begin;
        for (std::int64_t i = 0; i <= in_run; ++i)
          to.inputs[k].data<std::int64_t>()[i] = offsets[std::min(i, here)];  // then empty bags
        continue;
      }
      const std::size_t bytes = row_bytes(rows.inputs[k], n);
      const std::size_t size = static_cast<std::size_t>(here) * bytes;
      std::memcpy(to.inputs[k].bytes(), rows.inputs[k].bytes() + static_cast<std::size_t>(begin) * bytes,
                  size);
      std::memset(to.inputs[k].bytes() + size, 0, to.inputs[k].n_bytes() - size);
    }
    run(block, rows_, to.inputs, in_run, out);
    out.resize(static_cast<std::size_t>((begin + here) * n_outputs_));
  }
  return out;
}

InputGradients::InputGradients(const Model& model, const SampleSpec& spec, DType dtype,
                               const Predictor::Bind& bind, RowReader* rows)
    : model_(model),
      spec_(spec),
      batch_(spec, dtype, 1),
      executor_(model.graph, model.output, 1,
                {.also = {}, .forward_only = false, .gradients_of = float_inputs(model, spec)}),
      tables_(model.graph),
      rows_(rows),
      seed_(model.graph.node(model.output).type.dtype,
            with_batch(model.graph.node(model.output).type.shape, 1)) {
  for (std::size_t k = 0; k < spec.inputs.size(); ++k) {
    if (spec.inputs[k].features == Features::real) inputs_.push_back(k);
  }
  bind(executor_);
}

std::vector<double> InputGradients::of(const BatchView& rows, std::int64_t n, std::int64_t row,
                                       std::size_t output) {
  const BatchView view = batch_.view(1);
  for (std::size_t k = 0; k < spec_.inputs.size(); ++k) {
    const std::size_t bytes = row_bytes(rows.inputs[k], n);
    std::memcpy(view.inputs[k].bytes(), rows.inputs[k].bytes() + static_cast<std::size_t>(row) * bytes,
                bytes);
    executor_.feed(model_.inputs[k], view.inputs[k]);
  }
  tables_.read(executor_, rows_);
  for (const Executor::ForwardStep& step : executor_.forward_steps()) executor_.forward(step);
  const TensorView seed = seed_.view();
  std::memset(seed.bytes(), 0, seed.n_bytes());
  if (seed.dtype() == DType::float32) {
    seed.data<float>()[output] = 1;
  } else {
    seed.data<double>()[output] = 1;
  }
  executor_.start_backward(seed);
  for (const Executor::BackwardStep& step : executor_.backward_steps()) executor_.backward(step);
  std::vector<double> out;
  for (const std::size_t k : inputs_) {
    const TensorView& gradient = executor_.gradient(model_.inputs[k]);
    const std::int64_t n_elements = spec_.inputs[k].shape.n_elements();
    for (std::int64_t i = 0; i < n_elements; ++i)
      out.push_back(gradient.bytes() == nullptr ? 0.0 : number_at(gradient, i));
  }
  return out;
}

}  // namespace varscope
