#pragma once

#include <optional>
#include <string>

#include "checkpoint/format/manifest.h"
#include "common/config/job_config.h"
#include "worker/data/dataset.h"
#include "worker/layers/model.h"

namespace varscope {

// What a checkpoint says of its model, so that it can be used where neither the config nor the data are: of
// the effective config what the model is, the named inputs and the answers with their shapes, and the schema
// of the data, with vocabularies, classes and constants.
struct SavedModel {
  JobConfig job;
  DataFacts facts;
  std::string schema;                    // Dataset::schema()
  std::vector<std::string> class_names;  // by class; empty: 0, 1, ...
};

// As JSON.
std::string saved_model_text(const JobConfig& job, const Dataset& train);
// How the arrays are scaled that such a text tells of, as a line of the header ("  scale        x / 255");
// empty where they are not.
std::string scale_line(const std::string& saved_model_text);
// Nothing for a checkpoint that no run has made, or an older version. Throws Error(checkpoint) for a text
// that cannot be read: of a program with other types of data sources, say.
std::optional<SavedModel> saved_model(const Manifest& manifest);
// Of saved_model_text(); nothing for "". Throws as above.
std::optional<SavedModel> saved_model_of(const std::string& text);

}  // namespace varscope
