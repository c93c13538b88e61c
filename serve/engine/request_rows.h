#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "serve/engine/inference.h"
#include "serve/engine/servable.h"
#include "worker/data/table_builder.h"

namespace varscope {

// How the inputs of requests become the inputs of a model, as its training data did: numbers as they are,
// bytes of images divided by what theirs were divided by, words by the vocabulary, and records of a table
// column by column, with its constants, vocabularies and hashes. Immutable; safe from any thread.
class RequestRows {
 public:
  // Borrows the schema. Throws Error(checkpoint) for inputs that no request can have: bags that are no
  // columns of a table.
  explicit RequestRows(const ServableSchema& schema);

  const std::vector<TensorInfo>& inputs() const { return inputs_; }
  // Throws Error(data): see Version::check().
  std::int64_t check(const InferRequest& request) const;

  // Samples of several requests, one behind the other.
  class Rows {
   public:
    explicit Rows(const RequestRows& rows);
    // Adds rows [begin, begin + n) of a request that check() has let pass. Returns "" or, in a client's
    // words, what it has that the model does not take; then some rows of it may be there, and count.
    std::string add(const InferRequest& request, std::int64_t begin, std::int64_t n);
    std::int64_t size() const { return n_; }
    // All of them, as the model reads them; of this object's memory. Adding ends here.
    BatchView view();

   private:
    std::string add_dense(const InferRequest& request, std::int64_t begin, std::int64_t n);
    std::string add_records(const InferRequest& request, std::int64_t begin, std::int64_t n);
    const RequestRows& rows_;
    std::int64_t n_ = 0;
    std::vector<std::vector<std::byte>> dense_;  // of each input
    std::optional<TableBuilder> records_;
    std::unique_ptr<Dataset> table_;
    std::optional<Batch> batch_;
  };

 private:
  struct Column {
    std::string name;
    bool is_number = false;  // of numbers; else of words, or of ids that are numbers
    bool may_be_missing = false;
  };
  void describe_table();
  void describe_arrays();
  const TensorInfo& info_of(const InputTensor& tensor) const;

  const ServableSchema& schema_;
  std::optional<TableSchema> table_;  // whose columns are numbered as `columns_`
  std::vector<Column> columns_;
  std::vector<TensorInfo> inputs_;
  std::unordered_map<std::string_view, std::int64_t> ids_of_words_;  // of the schema's vocabulary
};

}  // namespace varscope
