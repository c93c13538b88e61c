// Compression of gradients (docs/performance.md, P17): each codec encodes normally distributed gradients,
// slice by slice, and adds them from its bytes, over memcpy of the same slices just before and after:
//   compression [--trials N] [--mib N] [--slice-kib N]
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/bench.h"
#include "common/base/philox.h"
#include "common/compression/codec.h"
#include "common/variables/slice.h"

namespace varscope::bench {
namespace {

struct Options {
  int trials = 7;
  std::size_t mib = 16;  // of gradients: more than most caches hold, with what is made of them
  std::size_t slice_kib = kMaxSliceBytes >> 10;
};

// The gradients of a model, what becomes of them, and memory to copy them to.
class Gradients {
 public:
  explicit Gradients(const Options& options)
      : trials_(options.trials),
        slice_(options.slice_kib * 1024 / sizeof(float)),
        n_slices_(std::max<std::size_t>(1, options.mib * 1024 / options.slice_kib)),
        gradient_(n_slices_ * slice_),
        residual_(gradient_.size()),
        sum_(gradient_.size()),
        bytes_(gradient_.size() * sizeof(float)) {
    const RandomStream random(1, RandomPurpose::test, 0);
    std::vector<double> normal(gradient_.size());
    random.normal(0, normal);
    for (std::size_t i = 0; i < normal.size(); ++i) gradient_[i] = static_cast<float>(normal[i] * 1e-4);
  }

  // Prints encode and add of this codec.
  void measure(const std::string& name, const Codec& codec) {
    std::ranges::fill(residual_, 0.0F);
    const std::size_t n_bytes = encoded_bytes(codec.type, slice_, codec.ratio);
    report(name, "encode", [&](std::size_t slice) {
      const auto residual = has_residual(codec.type) ? part(residual_, slice) : std::span<float>();
      if (encode_gradient(codec, part(gradient_, slice), residual, encoded(slice, n_bytes)))
        fail(ErrorKind::argument, "a gradient of the benchmark is not finite");
    });
    report(name, "add",
           [&](std::size_t slice) { add_gradient(codec, encoded(slice, n_bytes), part(sum_, slice)); });
  }

 private:
  std::span<float> part(std::vector<float>& all, std::size_t slice) const {
    return std::span(all).subspan(slice * slice_, slice_);
  }
  std::span<std::byte> encoded(std::size_t slice, std::size_t n_bytes) {
    return std::span(bytes_).subspan(slice * n_bytes, n_bytes);
  }
  double copy() {
    return seconds_of([&] {
      for (std::size_t slice = 0; slice < n_slices_; ++slice)
        std::memcpy(part(copy_, slice).data(), part(gradient_, slice).data(), slice_ * sizeof(float));
    });
  }
  template <class Work>
  void report(const std::string& name, const char* what, const Work& work) {
    std::vector<double> ratios, speeds;
    for (int i = -1; i < trials_; ++i) {  // the first take brings memory and residual to where they stay
      const double before = copy();
      const double ours = seconds_of([&] {
        for (std::size_t slice = 0; slice < n_slices_; ++slice) work(slice);
      });
      const double ceiling = (before + copy()) / 2;
      if (i < 0) continue;
      ratios.push_back(ceiling / ours);
      speeds.push_back(static_cast<double>(gradient_.size() * sizeof(float)) / ours / 1e9);
    }
    const Spread ratio = Spread::of(ratios), speed = Spread::of(speeds);
    fmt::print("{:<10} {:<7} {:>7.2f} {:>9.2f} [{:.2f} .. {:.2f}]\n", name, what, speed.median, ratio.median,
               ratio.min, ratio.max);
    std::fflush(stdout);
    require_positive(name + " " + what, ratio);
  }

  int trials_;
  std::size_t slice_;  // elements
  std::size_t n_slices_;
  std::vector<float> gradient_, residual_, sum_;
  std::vector<std::byte> bytes_;
  std::vector<float> copy_ = std::vector<float>(gradient_.size());
};

int main_of(int argc, char** argv) {
  Options options;
  CLI::App app("Encoding and adding of compressed gradients over memcpy of as many float32");
  app.add_option("--trials", options.trials, "Takes of each figure")->check(CLI::Range(1, 1000));
  app.add_option("--mib", options.mib, "MiB of gradients")->check(CLI::Range(1, 1024));
  app.add_option("--slice-kib", options.slice_kib, "KiB of a slice of them, 4 at least as in a job")
      ->check(CLI::Range(4, 1024));
  CLI11_PARSE(app, argc, argv);
  Gradients gradients(options);
  fmt::print(
      "{} takes of {} MiB of float32 in slices of {} KiB; GB/s of float32, and memcpy's time over ours\n",
      options.trials, options.mib, options.slice_kib);
  fmt::print("{:<10} {:<7} {:>7} {:>9} [min .. max]\n", "codec", "", "GB/s", "/ memcpy");
  gradients.measure("bf16", {CodecType::bf16});
  gradients.measure("fp16", {CodecType::fp16});
  gradients.measure("onebit", {CodecType::onebit});
  gradients.measure("topk 0.1 %", {CodecType::topk, 0.001});
  gradients.measure("topk 1 %", {CodecType::topk, 0.01});
  gradients.measure("topk 10 %", {CodecType::topk, 0.1});
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("compression", varscope::bench::main_of, argc, argv);
}
