#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "worker/data/array_dataset.h"
#include "worker/data/table_schema.h"
#include "worker/graph/executor.h"
#include "worker/layers/model.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// How rows of requests become samples, and outputs become answers: what a checkpoint says of its model's
// data. A value.
struct ServableSchema {
  enum class Answers : std::uint8_t {
    softmax,  // of classes, a logit for each
    sigmoid,  // of two classes, one logit
    values
  };
  SampleSpec spec;
  DType dtype = DType::float32;
  Answers answers = Answers::values;
  std::vector<std::string> names = {};       // of classes or values, by number; may be empty
  std::optional<TableSchema> table = {};     // samples are records of columns
  std::vector<ArrayInput> arrays = {};       // how arrays are scaled, by input; else none is
  std::vector<std::string> vocabulary = {};  // of texts, by id; [0] stands for every other word
};

// A checkpoint's model in memory, as the engine computes with it. Whoever knows configs implements it
// (launch/job/served_checkpoint.h). Immutable; safe from any thread.
class Servable {
 public:
  Servable() = default;
  Servable(const Servable&) = delete;
  Servable& operator=(const Servable&) = delete;
  virtual ~Servable() = default;

  virtual const Model& model() const = 0;  // in GraphMode::evaluate
  virtual const ServableSchema& schema() const = 0;
  // Lets an executor of model().graph read the values.
  virtual void bind(Executor& executor) const = 0;
  // Of the model's tables; null without any. Threads may read side by side.
  virtual RowReader* rows() const = 0;
  virtual std::int64_t n_bytes() const = 0;  // of values and rows
};

// Loads a checkpoint. Throws Error(checkpoint) for damage and for what cannot be served, Error(io).
using LoadServable = std::function<std::shared_ptr<const Servable>(const FoundCheckpoint&)>;

}  // namespace varscope
