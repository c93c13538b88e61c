#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "worker/data/batch.h"
#include "worker/graph/executor.h"
#include "worker/graph/local_states.h"
#include "worker/graph/table_feeds.h"
#include "worker/layers/model.h"

namespace varscope {

// Answers rows with the model's outputs, the same bits for a row whatever rows are asked for beside it. A
// matrix product may add up a row in another order when it stands elsewhere in a batch, or the batch has
// another size. So the executor always runs blocks of R rows, filled up with zeros, and R is the largest of
// 32, 16, 8, 4, 2 and 1 for which random rows, moved through all places of a block, have equal bits in each.
// The order of operations does not depend on the values; bags of ids are filled up with empty ones, and
// each is added up by itself. Recurrent layers begin each row with the first values of their states, zeros.
// Another type of processor may still differ.
//
// Where last bits may vary, runs have the rows that there are (Fill::cut), which is less work for few rows,
// and fewer and larger products for many.
//
// Owns activations for one block; borrows the model. Not thread-safe.
class Predictor {
 public:
  // `bind` lets an executor read the variables' values. REQUIRES model.mode == evaluate.
  using Bind = std::function<void(Executor&)>;
  // What a run has where fewer rows than a block's are left: zeros for those that are missing, or no more.
  enum class Fill : std::uint8_t { zeros, cut };
  // `node`: what is answered; unset: the model's output. `rows`: who gives the rows of tables, if the model
  // has any; borrowed. `block`: R, where another predictor of the model has found it, else it is looked for;
  // for Fill::cut, which must have it, the most rows of a run. To look for R, and with Fill::cut, runs are
  // made on random rows: the model is warm then.
  // Throws Error(argument) for a node that has no row for each row of the inputs, or that needs the labels.
  Predictor(const Model& model, const SampleSpec& spec, DType dtype, const Bind& bind,
            std::optional<NodeId> node = {}, RowReader* rows = nullptr,
            std::optional<std::int64_t> block = {}, Fill fill = Fill::zeros);

  std::int64_t block() const { return block_; }
  // Elements of the output for one row.
  std::int64_t n_outputs() const { return n_outputs_; }
  DType dtype() const;  // of the node
  // `rows` as `spec` says, y unused. Gives n * n_outputs() numbers.
  std::vector<double> outputs(const BatchView& rows, std::int64_t n);
  // The same of a node of int64, ids of rows, which a double may not hold. REQUIRES dtype() == int64.
  std::vector<std::int64_t> ids(const BatchView& rows, std::int64_t n);

 private:
  struct Block {
    LocalStates states;  // whose first values all runs read
    Executor executor;
    TableFeeds tables;
    Batch batch;
  };
  Block make_block(std::int64_t rows) const;
  bool all_places_agree(Block& block, std::int64_t rows) const;
  // What is given is appended to `out`.
  template <class Number>
  void run(Block& block, RowReader* reader, std::span<const TensorView> inputs, std::int64_t rows,
           std::vector<Number>& out) const;
  template <class Number>
  std::vector<Number> answers(const BatchView& rows, std::int64_t n);

  const Model& model_;
  NodeId node_;
  SampleSpec spec_;
  DType dtype_;
  Bind bind_;
  RowReader* rows_;
  Fill fill_;
  std::int64_t n_outputs_ = 0;
  std::int64_t block_ = 1;
  std::vector<Block> chosen_;  // one
};

// Gradients of a row's outputs by its inputs that are numbers: by the numbers that the model sees, after
// transforms. One row at a time, so that its bits do not depend on others. Owns activations for one row;
// borrows the model. Not thread-safe.
class InputGradients {
 public:
  // REQUIRES model.mode == evaluate. Throws Error(argument) for a model whose inputs are all ids.
  InputGradients(const Model& model, const SampleSpec& spec, DType dtype, const Predictor::Bind& bind,
                 RowReader* rows = nullptr);

  // The inputs of which, by their position in the spec, in order.
  const std::vector<std::size_t>& inputs() const { return inputs_; }
  // d output[i] / d inputs of row `row` of the batch: the elements of all inputs(), one after another.
  std::vector<double> of(const BatchView& rows, std::int64_t n, std::int64_t row, std::size_t output);

 private:
  const Model& model_;
  SampleSpec spec_;
  std::vector<std::size_t> inputs_;
  Batch batch_;
  Executor executor_;
  TableFeeds tables_;
  RowReader* rows_;
  Tensor seed_;
};

}  // namespace varscope
