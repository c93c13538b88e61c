#include "bench/sparse/figures.h"
namespace varscope::bench {
SparseFigures measure_saves(const SparseOptions&) { return {}; }
}  // namespace varscope::bench
