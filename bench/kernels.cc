// Element-wise kernels of a server, beside a STREAM-like triad over as many bytes (docs/performance.md, P5),
// and the checksums of a checkpoint beside memcpy. Google Benchmark: see --help for its options.
#include <benchmark/benchmark.h>

#include <cstring>

#include "common/base/hash.h"
#include "common/base/tensor.h"
#include "ps/update/optimizer.h"

namespace varscope::bench {
namespace {

constexpr std::int64_t kElements = 4 << 20;  // 16 MiB an array: out of cache

AlignedBytes array() {
  AlignedBytes a = allocate_aligned(kElements * sizeof(float));
  auto* p = reinterpret_cast<float*>(a.get());
  for (std::int64_t i = 0; i < kElements; ++i) p[i] = 0.5F;
  return a;
}

// a = b + s c: two arrays read, one written.
void triad(benchmark::State& state) {
  const AlignedBytes a = array(), b = array(), c = array();
  auto* x = reinterpret_cast<float*>(a.get());
  const auto* y = reinterpret_cast<const float*>(b.get());
  const auto* z = reinterpret_cast<const float*>(c.get());
  for (auto _ : state) {
    for (std::int64_t i = 0; i < kElements; ++i) x[i] = y[i] + 3.0F * z[i];
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 3 * kElements * static_cast<std::int64_t>(sizeof(float)));
}

// Bytes: gradient read; value and each slot read and written.
void update(benchmark::State& state, OptimizerType type) {
  OptimizerConfig config;
  config.type = type;
  const Optimizer optimizer(config);
  const AlignedBytes value = array(), gradient = array();
  std::vector<AlignedBytes> slots;
  std::vector<std::byte*> pointers;
  for (std::size_t i = 0; i < optimizer.slots().size(); ++i) {
    slots.push_back(array());
    pointers.push_back(slots.back().get());
  }
  std::int64_t clock = 0;
  for (auto _ : state) {
    optimizer.update(DType::float32, value.get(), gradient.get(), pointers, kElements,
                     UpdateStep::whole(Clock(++clock)));
  }
  state.SetBytesProcessed(state.iterations() * kElements * static_cast<std::int64_t>(sizeof(float)) *
                          (3 + 2 * static_cast<std::int64_t>(slots.size())));
}

// The same array as rows of 16, one after the other.
void update_rows(benchmark::State& state, OptimizerType type) {
  constexpr std::int64_t kUnits = 16;
  OptimizerConfig config;
  config.type = type;
  const Optimizer optimizer(config);
  const AlignedBytes value = array(), gradient = array();
  std::vector<AlignedBytes> slots;
  std::int64_t bytes = 3 * kUnits;
  for (const Slot& slot : optimizer.row_slots()) {
    slots.push_back(array());
    bytes += 2 * (slot.is_per_row ? 1 : kUnits);
  }
  std::vector<std::byte*> pointers(slots.size());
  std::int64_t clock = 0;
  for (auto _ : state) {
    const PushConstants push = optimizer.constants(UpdateStep::whole(Clock(++clock)));
    for (std::int64_t row = 0; row < kElements / kUnits; ++row) {
      const auto at = static_cast<std::ptrdiff_t>(row * kUnits * static_cast<std::int64_t>(sizeof(float)));
      for (std::size_t s = 0; s < slots.size(); ++s)
        pointers[s] = slots[s].get() + (optimizer.row_slots()[s].is_per_row ? at / kUnits : at);
      optimizer.update_row(DType::float32, value.get() + at, gradient.get() + at, pointers, kUnits, push,
                           clock);
    }
  }
  state.SetBytesProcessed(state.iterations() * kElements / kUnits * bytes *
                          static_cast<std::int64_t>(sizeof(float)));
}

void copy(benchmark::State& state) {
  const AlignedBytes a = array(), b = array();
  for (auto _ : state) {
    std::memcpy(a.get(), b.get(), kElements * sizeof(float));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kElements * static_cast<std::int64_t>(sizeof(float)));
}

void checksums(benchmark::State& state) {
  const AlignedBytes a = array();
  for (auto _ : state) {
    benchmark::DoNotOptimize(crc32c({a.get(), kElements * sizeof(float)}));
    benchmark::DoNotOptimize(digest_of({a.get(), kElements * sizeof(float)}));
  }
  state.SetBytesProcessed(state.iterations() * kElements * static_cast<std::int64_t>(sizeof(float)));
}

BENCHMARK(triad);
BENCHMARK_CAPTURE(update, sgd, OptimizerType::sgd);
BENCHMARK_CAPTURE(update, momentum, OptimizerType::momentum);
BENCHMARK_CAPTURE(update, nesterov, OptimizerType::nesterov);
BENCHMARK_CAPTURE(update, adagrad, OptimizerType::adagrad);
BENCHMARK_CAPTURE(update, rmsprop, OptimizerType::rmsprop);
BENCHMARK_CAPTURE(update, adam, OptimizerType::adam);
BENCHMARK_CAPTURE(update, ftrl, OptimizerType::ftrl);
BENCHMARK_CAPTURE(update_rows, adagrad, OptimizerType::adagrad);
BENCHMARK_CAPTURE(update_rows, rowwise_adagrad, OptimizerType::rowwise_adagrad);
BENCHMARK_CAPTURE(update_rows, ftrl, OptimizerType::ftrl);
BENCHMARK(copy);
BENCHMARK(checksums);

}  // namespace
}  // namespace varscope::bench

BENCHMARK_MAIN();
