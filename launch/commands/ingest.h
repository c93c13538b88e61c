#pragma once

#include <functional>

#include "checkpoint/storage/fs.h"
#include "launch/ingest/ingest_loop.h"

namespace CLI {
class App;
}

namespace varscope {

// Adds `varscope ingest` to the program, whose options go into `options`; `chosen` is called where it was
// given.
void add_ingest_command(CLI::App& app, IngestOptions& options, std::function<void()> chosen);

// `varscope ingest`: turns a stream of records into the files of a directory that a job follows
// (launch/ingest/ingest_loop.h), until the stream ends or a signal comes: SIGTERM, SIGINT or SIGHUP; the
// same one once more ends the process.
// Prints source and directory to standard output, and at the end how much came;
// what happens between goes to standard error. Call it from the main thread, while there is no other. Throws
// Error(config, data, checkpoint, io).
IngestEnd ingest(const IngestOptions& options, Fs& fs);

}  // namespace varscope
