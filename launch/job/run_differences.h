#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/serialization/version.hpp>

#include "checkpoint/format/manifest.h"
#include "common/base/data_identity.h"
#include "common/config/job_config.h"
#include "launch/job/job_setup.h"

namespace varscope {

// What a run is compared with when it goes on from a checkpoint, and a model that is loaded from one.
struct ComparedRun {
  DataIdentity train, test;                   // test is not known without a test set
  std::map<std::string, std::string> config;  // computing_config()
  std::string model = {};                     // launch/job/saved_model.h; since class version 1

  template <class Archive>
  void serialize(Archive& ar, unsigned version) {
    ar& train& test& config;
    if (version > 0) ar& model;
  }
};

// The effective values of all keys that change what a run computes or what its values mean, by their paths.
// Not among them: how long, how often and where to, first values, and how variables are
// sliced.
std::map<std::string, std::string> computing_config(const JobConfig& job);

// computing_config(), and how long, in which batches, from which seed: what runs are compared by.
std::map<std::string, std::string> hyperparameters(const JobConfig& job);

// For CoordinatorState::run. `last`: the step that the run is planned to end with.
std::string compared_run_text(const ModelFacts& facts, const JobConfig& job, Clock last);
// Where compression keeps something back from a tenth of the run on (compression.start_step: -1), a run of
// another length does so from another step on: what is other than in the checkpoint's run, where that is not
// past. `last`: the step that the run is planned to end with now.
std::vector<std::string> full_step_differences(const Manifest& resumed, const VariableTable& variables,
                                               Clock last);
// What a checkpoint keeps of its run; nothing for one that no run has made, of a version that did not keep
// it, and where it cannot be read.
std::optional<ComparedRun> compared_run(const Manifest& manifest);

// What data are not what they were, a line each, which begin with `key` (data.train); empty also where one of
// the two is not known. The count of samples is not among them.
std::vector<std::string> data_differences(const std::string& key, const DataIdentity& before,
                                          const DataIdentity& now);

// Which files of data.train have other bytes than they had, a line each: "data.train: a.csv: 120 bytes, XXH3
// ... in the checkpoint's run; 130 bytes, XXH3 ... now". Of the texts of launch/job/saved_model.h; empty
// where one of the two does not say it.
std::vector<std::string> file_differences(const std::string& model_before, const std::string& model_now);

// Where they are not what they were: "train.shuffle: true in the checkpoint's run, false now", a line each,
// all of them; the mode of consistency with all its keys in one. An empty `before`, of an older version,
// differs in nothing.
enum class ConfigPart : std::uint8_t {
  run,      // all but data
  model,    // the model, and what it is trained for
  meaning,  // of the model what its values are of: layers, activations, the loss
  // Of the run all but that: may change while values keep their meaning (rates, dropout, regularizers).
  // Without the life of tables' rows, which RestorePlan::changes has.
  training,
  data  // data.train
};
std::vector<std::string> config_differences(const std::map<std::string, std::string>& before,
                                            const JobConfig& now, ConfigPart part);

}  // namespace varscope

BOOST_CLASS_VERSION(varscope::ComparedRun, 1)
