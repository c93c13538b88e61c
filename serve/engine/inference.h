#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/hash.h"
#include "serve/engine/tensors.h"

namespace varscope {

// Which values have answered. A step is no identity: a run that has gone on from an older checkpoint may
// commit the same step again, and a rollback makes an older one the newest.
struct VersionId {
  std::int64_t step = 0;
  std::string manifest_id;  // of the checkpoint's commit
  Digest values_hash;
  bool operator==(const VersionId&) const = default;
  std::string name() const { return std::to_string(step); }  // model_version
};

// A version as metadata tell of it.
struct VersionInfo {
  enum class State : std::uint8_t { loading, available, gone };
  VersionId id;
  State state = State::available;
  std::string why;                       // gone, or why it is passed over
  std::string path;                      // of its checkpoint
  std::int64_t committed_ns = 0;         // since 1970
  std::optional<std::int64_t> event_ns;  // of the newest record it has learnt from, since 1970; of streams
  std::int64_t loaded_ns = 0;            // since 1970
  std::int64_t n_bytes = 0;              // of values in memory
  bool is_exact = true;                  // a row has the same bits in any batch
  std::int64_t block = 1;                // rows of a block; the most of a run where it is not exact
  std::vector<std::pair<std::string, double>> metrics = {};  // of its evaluation (METRICS), if there is one
};

// What is served under a version: immutable, safe from any thread.
struct ServedModel {
  VersionInfo version;
  std::shared_ptr<const Signature> signature;
};

// Why a request is not answered. Texts are for the client: what, where, what to do.
struct Refusal {
  enum class Kind : std::uint8_t {
    invalid,     // the request does not fit the model
    not_found,   // no such version
    not_ready,   // there is no version yet
    busy,        // the queue is full
    expired,     // the deadline has passed
    not_finite,  // an output is NaN or infinite, where numbers are asked for that cannot say so
    stopped,     // the engine ends
    internal
  };
  Kind kind = Kind::internal;
  std::string text;
};

struct InferRequest {
  std::vector<InputTensor> inputs;
  std::vector<std::string> outputs;  // by name, in the order of the answer; empty: the signature's first
  std::string version;               // a step; empty: the newest that is served
  std::optional<std::int64_t> deadline_ns = {};  // of now_ns(); then it is refused, and never computed
  bool refuses_not_finite = false;               // the answer will be text that has no NaN
  std::shared_ptr<void> memory;                  // what the inputs borrow from, kept as long as they are
  std::int64_t n_memory_bytes = 0;               // of it, beside the inputs' data
  // Asked at times while the request waits: true drops it, since nobody waits for the answer.
  std::function<bool()> is_abandoned = {};
};

struct InferAnswer {
  std::optional<Refusal> refusal;  // then nothing else is set
  ServedModel model;               // the one version that all rows were computed by
  std::vector<OutputTensor> outputs;
  std::int64_t n_rows = 0;
  std::int64_t queue_ns = 0, compute_ns = 0;
};

// What the front ends (HTTP) ask: a model with its versions. Safe from any thread.
class Inference {
 public:
  Inference() = default;
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;
  virtual ~Inference() = default;

  // Whether a version is loaded and warm; else `why` says what is waited for: "no committed checkpoint yet".
  virtual bool is_ready(std::string* why = nullptr) const = 0;
  // The version of that name; of an empty name, the newest. Nothing where there is none: versions() says
  // which there are.
  virtual std::optional<ServedModel> model(const std::string& version = {}) const = 0;
  // Served ones first, newest first; then some of those that have gone or were passed over, and why.
  virtual std::vector<VersionInfo> versions() const = 0;
  // Calls `done` once: from a compute thread, or before it returns where it refuses at once. `done` must
  // not throw, and not wait.
  virtual void infer(InferRequest request, std::function<void(InferAnswer)> done) = 0;
  // How long the oldest computation that runs has run; 0 without one: a stuck thread shows itself.
  virtual std::int64_t longest_compute_ns() const = 0;
};

}  // namespace varscope
