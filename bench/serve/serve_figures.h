#pragma once

#include <memory>
#include <string>

#include "bench/figures.h"
#include "bench/serve/load_client.h"
#include "bench/serve/served_model.h"
#include "bench/serve/servers.h"

namespace varscope::bench {

// `varscope serve` on what is at `path`, ready.
std::unique_ptr<ServerProcess> start_varscope(const ServeBenchOptions& options, const std::string& path,
                                              const Args& more = {});
// This program as a bare server that answers with what `ours` answers to `request`, after the products of so
// many rows (0: none) and, where told, after it has read the body as JSON (echo.h).
std::unique_ptr<ServerProcess> start_echo(const ServerProcess& ours, const std::string& request,
                                          std::int64_t rows = 0, bool reads_json = false);
// How many rows the server's products have when it is asked for one.
std::int64_t rows_of_one(const ServerProcess& ours);

// Load whose answers are all good; throws std::runtime_error with the first that is not.
LoadResult good_load(const LoadOptions& options);

// The targets by where they are measured.
Figures measure_live(const ServeBenchOptions&);       // V1
Figures measure_one_row(const ServeBenchOptions&);    // V2
Figures measure_batching(const ServeBenchOptions&);   // V3
Figures measure_exact(const ServeBenchOptions&);      // V4
Figures measure_tail(const ServeBenchOptions&);       // V5
Figures measure_swaps(const ServeBenchOptions&);      // V6
Figures measure_loads(const ServeBenchOptions&);      // V7
Figures measure_peers(const ServeBenchOptions&);      // V8, V9
Figures measure_followed(const ServeBenchOptions&);   // V10
Figures measure_freshness(const ServeBenchOptions&);  // V11, and V12 of a job that waits
Figures measure_idle(const ServeBenchOptions&);       // V12

}  // namespace varscope::bench
