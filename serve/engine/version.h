#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/fs.h"
#include "common/config/job_config.h"
#include "serve/engine/inference.h"
#include "worker/layers/layer.h"

namespace varscope {

// One checkpoint, ready to answer: its graph, its values in memory of their own (what a version that goes
// leaves goes back to the system), the rows of its tables, and what its inputs and outputs are. Immutable
// once loaded; safe from any thread. A request holds the version that it was begun with.
//
// A row has the same bits alone, beside others, in any place and at any size of batch, and in
// `varscope predict` (worker/train/predictor.h): that is `exact`.
class Version {
 public:
  struct Options {
    bool exact = true;                      // else one product of matrices for what waits; last bits vary
    std::int64_t max_batch = 64;            // rows of a computation, without `exact`
    const LayerRegistry* layers = nullptr;  // null: the built-in ones
    // The config for checkpoints that do not say what they are of; else the checkpoint's own.
    const JobConfig* job = nullptr;
    // Tensors that are equal to those of this version are shared with it; may be null.
    std::shared_ptr<const Version> like = nullptr;
    // Asked while much is read: false gives up with Error(argument), since the process ends.
    std::function<bool()> goes_on = [] { return true; };
  };
  // All files are opened before any is read, so that a checkpoint that retention removes in the meantime
  // still loads. Throws Error(checkpoint) for bytes that are damaged, another model or a model that cannot
  // be served (a text that is generated), Error(io); `removed` in the latter's words where files were gone
  // (is_gone()).
  static std::shared_ptr<const Version> load(Fs& fs, const FoundCheckpoint& checkpoint,
                                             const Options& options);
  virtual ~Version() = default;

  virtual const ServedModel& served() const = 0;
  // Of values and rows: what two versions together must have room for.
  virtual std::int64_t n_bytes() const = 0;

  // What one thread computes with. Owns activations; borrows the version, which it keeps alive.
  class Runner {
   public:
    Runner() = default;
    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;
    virtual ~Runner() = default;
    // Answers the rows of all requests, block by block; answers[i] is requests[i]'s, refused or not. Requests
    // that do not fit were refused by check() before. Does not throw.
    virtual void run(std::span<const InferRequest* const> requests, std::span<InferAnswer> answers) = 0;
  };
  virtual std::unique_ptr<Runner> make_runner() const = 0;

  // How many rows a request has. Throws Error(data) with the words of a Refusal::invalid: an input that is
  // missing or unknown (with the nearest name), another shape or type, an id outside its range with row,
  // place and value, an output that the model does not have.
  virtual std::int64_t check(const InferRequest& request) const = 0;
};

}  // namespace varscope
