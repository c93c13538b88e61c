#pragma once

#include <string>

#include "checkpoint/storage/fs.h"
#include "common/base/error.h"
#include "launch/job/job_setup.h"

namespace varscope {

// What to do once a run is not finite: names the newest finite checkpoint, and the command that goes on
// from it. That is one of the job's directory, or else `resumed`, the one that the run came from ("":
// none). Reads
// manifests, and of older formats values; what it cannot read it does not name.
std::string finite_advice(Fs& fs, const StartPacket& start, const std::string& resumed);

// Calls `work`, and adds the advice to an Error(not_finite) that it throws.
template <class Work>
auto with_finite_advice(Fs& fs, const StartPacket& start, Work work) {
  try {
    return work();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::not_finite) throw;
    throw Error(e.kind(), e.what() + ("; " + finite_advice(fs, start, start.resume_path)), e.where());
  }
}

// A checkpoint that a run shall go on from (`what_for`: "resume") though it is not finite: a warning with
// train.on_nan: warn, else Error(not_finite). "" for a finite one, and where its manifest does not say.
// `not_finite`: of what is taken from it.
std::string start_warning(Fs& fs, const StartPacket& start, const std::string& path,
                          const std::vector<NotFiniteTensor>& not_finite);

}  // namespace varscope
