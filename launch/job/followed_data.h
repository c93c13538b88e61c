#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/transport/run_requests.h"
#include "launch/job/saved_model.h"
#include "worker/data/dataset.h"

namespace varscope {

// What a followed directory holds for its reader.
struct FollowedListing {
  std::vector<std::string> files;  // sorted by their bytes
  bool has_end = false;            // the file END: no other will come
};
inline constexpr const char* kEndOfStream = "END";

// Plain files, but those whose names begin with "." or end in ".tmp", and END. With END all files are there
// that came before it. Throws Error(data) for a directory that cannot be listed.
FollowedListing list_followed(const std::string& directory);

// The directory that data.train follows: as it is written, or below the config's folder or VARSCOPE_DATA.
// Throws Error(data) where there is none.
std::string followed_directory(const JobConfig& job);

// There is no such file (any more); false where that cannot be told.
bool is_gone(const std::string& path);

// The samples of one of its files; null where it has none. `schema`: of the training data, "" for the first
// file. Bad records are left out, however many, or an error, as data.train says. Throws Error(data).
std::unique_ptr<Dataset> open_followed(const JobConfig& job, const std::string& path,
                                       const std::string& schema);

// The first file of the directory that has samples now. Throws Error(data) where none has.
std::unique_ptr<Dataset> open_first_followed(const JobConfig& job);

// The first file with samples, from which a new run makes its schema: waits until there is one. `tell` gets a
// line when it begins to wait. Nothing once it waits and is asked to stop; a request to save is
// dropped, as there is nothing to save. Throws Error(data), also where END comes before any record.
std::optional<std::string> wait_for_first_file(const JobConfig& job, RunRequests& requests,
                                               const std::function<void(const std::string&)>& tell);

// What is known of the samples of a saved model, without any of them: size() is 0.
std::unique_ptr<Dataset> described_data(const SavedModel& model);

}  // namespace varscope
