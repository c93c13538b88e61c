#pragma once

#include <cstdint>
#include <string>

#include "bench/figures.h"

namespace varscope::bench {

// What all targets are measured with.
struct SparseOptions {
  int trials = 5;                          // takes of each figure
  bool is_small = false;                   // the smallest sizes: does it run at all?
  std::uint64_t growth_rows = 10'000'000;  // of E6 and E7
  std::string dir;                         // for files; removed afterwards
  std::string program;                     // varscope
  std::string before;                      // a varscope of earlier times, or ""
  std::string python = "python3";
  std::string peer;  // sparse_torch.py
  std::string mpirun = "mpirun";
};

using SparseFigure = Figure;
using SparseFigures = Figures;

// The targets by where they are measured. Each appends its lines.
SparseFigures measure_reads(const SparseOptions&);         // E1
SparseFigures measure_updates(const SparseOptions&);       // E2
SparseFigures measure_growth(const SparseOptions&);        // E6, E7
SparseFigures measure_churn(const SparseOptions&);         // E8
SparseFigures measure_hash_and_cut(const SparseOptions&);  // E12, of the server
SparseFigures measure_unique(const SparseOptions&);        // E5
SparseFigures measure_training(const SparseOptions&);      // E4
SparseFigures measure_dense(const SparseOptions&);         // E12, of a model without tables
SparseFigures measure_saves(const SparseOptions&);         // E9, E10
// E3, E13: starts mpirun, which starts this program with --as-rank; there exchange_as_rank() is main.
SparseFigures measure_exchange(const SparseOptions&);
int exchange_as_rank(const SparseOptions&, int argc, char** argv);

}  // namespace varscope::bench
