#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "checkpoint/storage/atomic_file.h"
#include "checkpoint/storage/fs.h"
#include "common/base/tensor.h"
#include "launch/commands/predicted_arrays.h"
#include "launch/job/saved_model.h"
#include "worker/layers/model.h"

namespace varscope {

// What the outputs of a row are called, and are. Borrows the model.
class Answers {
 public:
  enum class Output : std::uint8_t { classes, probabilities, logits, values };

  // `asked`: classes, probabilities, logits or values; empty: what fits the model, of which there is room for
  // `most`. Throws Error(config) for what the model does not have.
  Answers(const SavedModel& model, const Model& graph, std::int64_t n_outputs,
          const std::vector<std::string>& asked, std::size_t most);

  std::vector<std::string> header() const;
  // The cells of one row; `row` has its outputs.
  void add(std::span<const double> row, std::vector<std::string>& cells) const;
  // The same as arrays: what they are, and the numbers of one row.
  std::vector<PredictedArrays::Column> columns() const;
  void add(std::span<const double> row, PredictedArrays& arrays) const;

  // Whose gradients are asked for, and what their columns are called; "" where there is one.
  std::vector<std::string> gradient_names() const;
  std::vector<std::size_t> gradient_outputs(std::span<const double> row) const;

  DType dtype() const { return model_.job.model.dtype; }
  std::string number(double x) const;

 private:
  void choose(const std::vector<std::string>& asked, std::size_t most);
  std::size_t answer(std::span<const double> row) const;
  std::vector<double> probabilities(std::span<const double> row) const;

  const SavedModel& model_;
  std::size_t n_;
  bool is_sigmoid_ = false, is_class_ = false;
  std::vector<Output> outputs_;
  std::vector<std::string> names_;  // of classes, or of values
};

enum class AnswerFormat : std::uint8_t { csv, jsonl, npy, npz };

// By its name, or where that is empty by the ending of the file; csv for "-". Throws Error(config).
AnswerFormat answer_format(const std::string& name, const std::string& out);

// Numbers of each row beside its answers: what they are called, all of them and each.
struct Extra {
  std::string name;
  std::vector<std::string> columns;
  std::optional<IdType> ids = {};  // they are ids of rows, of this type
};
// One of them: a number, or the 64 bits of an id.
using ExtraNumber = std::variant<double, std::uint64_t>;

// Where the answers go, row by row. The file is whole or not there. Borrows the answers. Not thread-safe.
class AnswerWriter {
 public:
  // `keep`: columns of the input that are copied. Throws Error(config) for what the format has no place for,
  // Error(io).
  AnswerWriter(Fs& fs, const std::string& out, AnswerFormat format, const Answers& answers,
               const std::vector<std::string>& keep, const std::vector<Extra>& extras);
  // `kept`: the row's cells of the columns to keep; `more`: its numbers of all extras.
  void add(std::span<const double> row, std::span<const std::string> kept, std::span<const ExtraNumber> more);
  void finish();

 private:
  void add_array(std::size_t column, std::span<const ExtraNumber> numbers);
  void flush();

  AnswerFormat format_;
  const Answers& answers_;
  std::size_t n_kept_, n_answers_ = 0;
  std::vector<Extra> extras_;
  std::vector<std::string> header_, cells_;
  std::string text_;
  std::optional<AtomicFile> file_;
  std::optional<PredictedArrays> arrays_;
};

}  // namespace varscope
