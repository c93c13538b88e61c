// Compressed gradients: bytes of the network, which are decoded or refused, and gradients of any bits, which
// are encoded or told not to be finite. The first byte says which, and how; the next two how many elements.
#include "common/compression/codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tests/fuzz/fuzz.h"

using namespace varscope;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

// Whether the bytes were refused, as what they are: bytes of the network.
template <class Work>
bool is_refused(const Work& work) {
  try {
    work();
  } catch (const Error& e) {
    require(e.kind() == ErrorKind::protocol);
    return true;
  }
  return false;
}

void read(const Codec& codec, std::span<const std::byte> bytes, std::size_t n) {
  std::vector<float> values(n, 1.0F), into(n);
  for (std::size_t i = 0; i < n; ++i) into[i] = i % 3 == 0 ? -0.0F : static_cast<float>(i) - 5;
  const std::vector<float> before = into;
  const bool refused = is_refused([&] { decode_gradient(codec, bytes, values); });
  require(refused == is_refused([&] { add_gradient(codec, bytes, into); }));
  for (std::size_t i = 0; i < n; ++i) require(same(into[i], refused ? before[i] : before[i] + values[i]));
}

// What is decoded and the residual are all there was.
void expect_nothing_lost(const Codec& codec, std::span<const float> sums, std::span<const float> residual,
                         std::span<const std::byte> bytes) {
  std::vector<float> values(sums.size());
  decode_gradient(codec, bytes, values);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    require(std::isfinite(values[i]));
    if (has_residual(codec.type)) require(std::isfinite(residual[i]) && residual[i] == sums[i] - values[i]);
    if (codec.type != CodecType::bf16) continue;
    require(std::abs(sums[i] - values[i]) <= std::max(std::abs(sums[i]) * 0x1p-8F, 0x1p-133F));
  }
}

// float32 of any bits.
std::vector<float> floats(std::span<const std::byte> bits) {
  std::vector<float> values;
  for (; bits.size() >= sizeof(float); bits = bits.subspan(sizeof(float))) {
    float x;
    std::memcpy(&x, bits.data(), sizeof x);
    values.push_back(x);
  }
  return values;
}

void write(const Codec& codec, std::span<const std::byte> bits) {
  const std::size_t n = bits.size() / (2 * sizeof(float));
  const std::vector<float> g = floats(bits.first(n * sizeof(float)));
  std::vector<float> r;
  if (has_residual(codec.type)) r = floats(bits.subspan(n * sizeof(float), n * sizeof(float)));
  for (float& x : r) x = std::isfinite(x) ? x : 0.0F;
  const std::vector<float> before = r;
  std::vector<float> sums = g;
  for (std::size_t i = 0; i < r.size(); ++i) sums[i] = g[i] + r[i];
  std::vector<std::byte> bytes(encoded_bytes(codec.type, n, codec.ratio));
  const auto bad = encode_gradient(codec, g, r, bytes);
  const auto first =
      std::find_if(sums.begin(), sums.end(), [](float x) { return !std::isfinite(x); }) - sums.begin();
  require(bad ? bad->element == first : first == static_cast<std::ptrdiff_t>(n));
  if (bad) return require(std::ranges::equal(r, before, same));
  expect_nothing_lost(codec, sums, r, bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  constexpr double kRatios[] = {0.01, 0.1, 0.5, 1};
  const Codec codec{static_cast<CodecType>(1 + data[0] % 4), kRatios[data[0] >> 2 & 3]};
  const std::size_t n = (data[1] | data[2] << 8) % 2000;
  const auto rest = std::as_bytes(std::span(data, size).subspan(3));
  std::vector<std::byte> bytes(rest.begin(), rest.end());
  if ((data[0] & 16) != 0) {
    write(codec, bytes);
  } else {
    // Mostly of the right length, which few others are.
    if ((data[0] & 32) == 0) bytes.resize(encoded_bytes(codec.type, n, codec.ratio));
    read(codec, bytes, n);
  }
  return 0;
}
