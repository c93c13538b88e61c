#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "serve/engine/inference.h"
#include "serve/engine/request_rows.h"
#include "serve/engine/servable.h"
#include "worker/train/predictor.h"

namespace varscope {

// Rows [begin, begin + n) of a request, whose answers are appended to `answer`.
struct RequestPiece {
  const InferRequest* request = nullptr;
  std::int64_t begin = 0, n = 0;
  InferAnswer* answer = nullptr;
};

// One checkpoint, ready to answer: its model, and what its inputs and outputs are. Immutable; safe from any
// thread. A request holds the version that it was begun with.
//
// A row has the same bits alone, beside others, in any place and at any size of batch, and in
// `varscope predict` (worker/train/predictor.h); unless it is not exact, when last bits may vary.
class Version {
 public:
  // Finds the block R, which is the first run of the model, too. `info` without what follows from the model;
  // where it is not exact `block` is the most rows of a run.
  // Throws Error(checkpoint) for a model that cannot be served.
  Version(std::shared_ptr<const Servable> servable, VersionInfo info);

  const ServedModel& served() const { return served_; }
  const VersionId& id() const { return served_.version.id; }
  std::int64_t n_bytes() const { return servable_->n_bytes(); }
  // How many rows a request has; all that can be seen without reading its elements is right. Throws
  // Error(data) in a client's words: an input that is missing or unknown, another shape or type, rows that
  // are not as many in all inputs, an output that the model does not have.
  std::int64_t check(const InferRequest& request) const;

  // What one thread computes with. Owns activations; borrows the version. Not thread-safe.
  class Runner {
   public:
    explicit Runner(const Version& version);
    // Computes the rows of all pieces together. A request with elements that the model does not take (an id
    // outside its range, a cell that is no number) gets a refusal, and others their answers. Throws nothing.
    void run(std::span<const RequestPiece> pieces);

   private:
    void answer(const RequestPiece& piece, std::span<const double> values) const;
    const Version& version_;
    Predictor predictor_;
  };

 private:
  void describe_outputs();

  std::shared_ptr<const Servable> servable_;
  RequestRows rows_;
  std::int64_t n_outputs_ = 0;    // elements of the model's output for a row
  std::int64_t n_targets_ = 1;    // words of a window
  std::int64_t n_of_target_ = 1;  // n_outputs_ / n_targets_
  ServedModel served_;
};

}  // namespace varscope
