#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/exchange/exchange_file.h"
#include "checkpoint/storage/fs.h"
#include "common/base/hash.h"

namespace varscope {

struct ImportPlan {
  std::int64_t step = 0;
  std::string optimizer = "sgd";
  std::vector<std::string> slots;  // of that optimizer
  std::string program_version;
  Widen widen = Widen::no;
  std::set<std::string> string_ids = {};  // tables whose uint64 ids are the hashes of strings
};
struct Imported {
  std::string path;  // of the checkpoint
  Digest values_hash;
  std::size_t n_variables = 0;
  int n_slots_found = 0;  // tensors that were slots
  ReadNotes notes;
  std::vector<std::string> warnings;  // what failed after the commit, and did no harm; values not finite
};
// Commits the file's tensors as the checkpoint of a step in the directory `dir` (one server, no workers). A
// tensor "<variable>/<slot>" of one of plan.slots, with the variable's shape and dtype, is that slot; slots
// of floating-point variables that the file does not have are 0. Tensors T.ids and T.values are a table
// (ImportedTable), of which a row with NaN or infinities is an Error(data). There is no place in the data:
// such a checkpoint can be evaluated, exported and compared, but a run cannot be resumed from it. Takes the
// lock of `dir`. Throws Error(checkpoint) when the file is not valid or a job writes in `dir`, Error(io).
Imported import_checkpoint(Fs& fs, const std::string& file, const std::string& dir, ExchangeFormat format,
                           const ImportPlan& plan);

}  // namespace varscope
