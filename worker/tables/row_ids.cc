#include "worker/tables/row_ids.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/base/row_id.h"
#include "common/base/text.h"

namespace varscope {
namespace {

constexpr std::size_t kSmallBucket = 32;

// Calls body(pointer to the ids).
template <class Body>
void with_ids(const TensorView& ids, Body body) {
  if (ids.dtype() == DType::int32) {
    body(static_cast<const std::int32_t*>(ids.data<std::int32_t>()));
  } else {
    body(static_cast<const std::int64_t*>(ids.data<std::int64_t>()));
  }
}

template <class Id>
std::uint64_t row_id(Id id) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(id));  // int32 by its sign
}

template <class Key>
void sort_small(Key* begin, Key* end) {
  for (Key* at = begin + 1; at < end; ++at) {
    const Key key = *at;
    Key* to = at;
    for (; to > begin && to[-1].mixed > key.mixed; --to) *to = to[-1];
    *to = key;
  }
}

}  // namespace

RowIds::RowIds(const RowPlan::Table& table, std::vector<RowLookup> lookups, int n_logical_workers)
    : table_(table),
      lookups_(std::move(lookups)),
      added_(lookups_.size() * static_cast<std::size_t>(n_logical_workers)),
      first_(table.has_parts.size() + 1, 0),
      ends_(static_cast<std::size_t>(n_logical_workers), 0),
      touched_ends_(static_cast<std::size_t>(n_logical_workers), 0) {}

void RowIds::clear() {
  logical_worker_ = 0;
  for (Added& a : added_) a.is_here = false;
  std::ranges::fill(ends_, 0);
  keys_.clear();
  positions_.clear();
  offsets_.clear();
  weights_.clear();
}

void RowIds::check_size(const RowLookup& lookup, std::int64_t n) const {
  const auto before = static_cast<std::int64_t>(positions_.size());
  if (n <= kMostIds - before) return;
  fail(ErrorKind::data,
       "input \"{}\": the batch has {} ids, {} of table \"{}\" in this step; there is room for {}: lower "
       "train.batch, or have more workers",
       lookup.input, with_commas(n), with_commas(before + n), table_.name, with_commas(kMostIds));
}

RowIds::Bags RowIds::bags_of(const RowLookup& lookup, const RowInput& input) const {
  const std::int64_t total = input.ids.n_elements();
  if (input.weights && input.weights->n_elements() != total) {
    fail(ErrorKind::data, "input \"{}\": the bags of the batch have {} ids and {} weights; each id has one",
         lookup.input, total, input.weights->n_elements());
  }
  if (!input.offsets) {
    const std::int64_t n = input.ids.shape().rank() == 0 ? 1 : input.ids.shape()[0];
    return {nullptr, n, n == 0 ? 0 : total / n};
  }
  const auto offsets = input.offsets->as<std::int64_t>();
  std::int64_t before = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] < before || offsets[i] > total) {
      fail(ErrorKind::data,
           "input \"{}\": offset {} of the bags of the batch is {}; it must be {} .. {}, between the offset "
           "before and the number of ids",
           lookup.input, i, offsets[i], before, total);
    }
    before = offsets[i];
  }
  return {offsets.data(), std::max<std::int64_t>(0, std::ssize(offsets) - 1), 0};
}

void RowIds::add(int logical_worker, std::size_t lookup, const RowInput& input) {
  const RowLookup& what = lookups_[lookup];
  Added& added = added_[static_cast<std::size_t>(logical_worker) * lookups_.size() + lookup];
  if (logical_worker < logical_worker_ || added.is_here)
    fail(ErrorKind::argument, "input \"{}\": the ids of a step were not added in their order", what.input);
  for (; logical_worker_ < logical_worker; ++logical_worker_)
    ends_[static_cast<std::size_t>(logical_worker_)] = positions_.size();
  added = {.is_here = true,
           .positions = positions_.size(),
           .offsets = offsets_.size(),
           .weights = weights_.size(),
           .shape = input.ids.shape()};
  if (!what.in_bags) {
    check_size(what, input.ids.n_elements());
    with_ids(input.ids, [&](const auto* ids) { add_each(what, ids, input.ids.n_elements()); });
  } else {
    const Bags bags = bags_of(what, input);
    check_size(what, bags.n == 0 ? 0 : bags.begin(bags.n) - bags.begin(0));
    with_ids(input.ids, [&](const auto* ids) {
      if (!input.weights) {
        add_bags<std::remove_cvref_t<decltype(*ids)>, float>(what, bags, ids, nullptr);
      } else if (input.weights->dtype() == DType::float32) {
        add_bags(what, bags, ids, static_cast<const float*>(input.weights->data<float>()));
      } else {
        add_bags(what, bags, ids, static_cast<const double*>(input.weights->data<double>()));
      }
    });
    if (input.weights) added.weights_dtype = input.weights->dtype();
  }
  added.n_positions = positions_.size() - added.positions;
  added.n_offsets = offsets_.size() - added.offsets;
}

template <class Id>
void RowIds::add_each(const RowLookup& lookup, const Id* ids, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint64_t id = row_id(ids[i]);
    if (lookup.padding == id) {
      positions_.push_back(-1);
    } else {
      push(id);
    }
  }
}

template <class Id, class T>
void RowIds::add_bags(const RowLookup& lookup, const Bags& bags, const Id* ids, const T* weights) {
  const std::size_t begin = positions_.size();
  offsets_.push_back(0);
  for (std::int64_t row = 0; row < bags.n; ++row) {
    for (std::int64_t i = bags.begin(row); i < bags.begin(row + 1); ++i) {
      if (weights != nullptr) {
        const auto weight = static_cast<double>(weights[i]);
        if (!std::isfinite(weight) || (weight < 0 && lookup.positive_weights)) {
          fail(ErrorKind::data,
               "input \"{}\": row {} of the batch has weight {} at position {} of its bag; weights must be "
               "finite{}",
               lookup.input, row, weight, i - bags.begin(row),
               lookup.positive_weights ? ", and with mean and sqrtn not negative" : "");
        }
        if (weight == 0) continue;
      }
      const std::uint64_t id = row_id(ids[i]);
      if (lookup.padding == id) continue;
      push(id);
      if (weights == nullptr) continue;
      const auto* bytes = reinterpret_cast<const std::byte*>(weights + i);
      weights_.insert(weights_.end(), bytes, bytes + sizeof(T));
    }
    offsets_.push_back(static_cast<std::int64_t>(positions_.size() - begin));
  }
  // The weights of the next lookup begin where their type may.
  weights_.resize((weights_.size() + 7) / 8 * 8);
}

void RowIds::push(std::uint64_t id) {
  keys_.push_back({mix_row_id(id), static_cast<std::uint32_t>(positions_.size())});
  positions_.push_back(0);
}

void RowIds::finish() {
  for (; logical_worker_ < static_cast<int>(ends_.size()); ++logical_worker_)
    ends_[static_cast<std::size_t>(logical_worker_)] = positions_.size();
  sort();
  count_by_server();
  rank();
  mark_touched();
}

// Mixed ids are spread evenly, so that buckets by their highest bits have about 4 different ones each. Where
// they have more, an id that came often or because somebody has chosen the ids so, a bucket is sorted as a
// whole.
void RowIds::sort() {
  const std::size_t n = keys_.size();
  const int bits = std::clamp(static_cast<int>(std::bit_width(n / 4)), 1, 20);
  const auto bucket_of = [shift = 64 - bits](std::uint64_t mixed) {
    return static_cast<std::size_t>(mixed >> shift);
  };
  buckets_.assign((std::size_t{1} << bits) + 1, 0);
  for (const Key& key : keys_) ++buckets_[bucket_of(key.mixed) + 1];
  for (std::size_t b = 1; b < buckets_.size(); ++b) buckets_[b] += buckets_[b - 1];
  sorted_.resize(n);
  for (const Key& key : keys_) sorted_[buckets_[bucket_of(key.mixed)]++] = key;
  std::size_t begin = 0;  // the scatter has left each bucket's end in its place
  for (std::size_t b = 0; b + 1 < buckets_.size(); ++b) {
    const std::size_t end = buckets_[b];
    if (end - begin > kSmallBucket) {
      std::sort(sorted_.begin() + static_cast<std::ptrdiff_t>(begin),
                sorted_.begin() + static_cast<std::ptrdiff_t>(end),
                [](const Key& x, const Key& y) { return x.mixed < y.mixed; });
    } else if (end - begin > 1) {
      sort_small(sorted_.data() + begin, sorted_.data() + end);
    }
    begin = end;
  }
}

std::size_t RowIds::server_of(std::uint64_t mixed) const {
  return static_cast<std::size_t>(
      table_.owner[static_cast<std::size_t>(row_part(mixed, table_.spec.parts))].value);
}

// first_: how many different ids the servers before have.
void RowIds::count_by_server() {
  std::ranges::fill(first_, 0);
  for (std::size_t i = 0; i < sorted_.size(); ++i) {
    if (i > 0 && sorted_[i].mixed == sorted_[i - 1].mixed) continue;
    ++first_[first_.size() == 2 ? 0 : server_of(sorted_[i].mixed)];
  }
  std::int64_t before = 0;
  for (std::int64_t& n : first_) before += std::exchange(n, before);
}

void RowIds::rank() {
  next_.assign(first_.begin(), first_.end());
  ids_.resize(static_cast<std::size_t>(first_.back()));
  std::int32_t position = 0;
  for (std::size_t i = 0; i < sorted_.size(); ++i) {
    const Key& key = sorted_[i];
    if (i == 0 || key.mixed != sorted_[i - 1].mixed) {
      position = static_cast<std::int32_t>(next_[first_.size() == 2 ? 0 : server_of(key.mixed)]++);
      ids_[static_cast<std::size_t>(position)] = unmix_row_id(key.mixed);
    }
    positions_[key.entry] = position;
  }
}

// touched_: of each logical worker its positions, in ascending order; then padding gets its own.
void RowIds::mark_touched() {
  touched_.clear();
  counts_.clear();
  if (table_.counts_ids()) n_of_.assign(ids_.size(), 0);
  std::size_t begin = 0;
  for (std::size_t v = 0; v < ends_.size(); ++v) {
    marks_.assign((ids_.size() + 63) / 64, 0);
    for (; begin < ends_[v]; ++begin) mark(positions_[begin]);
    list_touched();
    touched_ends_[v] = touched_.size();
  }
}

void RowIds::mark(std::int32_t& position) {
  if (position < 0) {
    position = static_cast<std::int32_t>(ids_.size());
    return;
  }
  marks_[static_cast<std::size_t>(position) / 64] |= std::uint64_t{1} << (position % 64);
  if (!n_of_.empty()) ++n_of_[static_cast<std::size_t>(position)];
}

// Leaves no counts behind for the next logical worker.
void RowIds::list_touched() {
  for (std::size_t word = 0; word < marks_.size(); ++word) {
    for (std::uint64_t rest = marks_[word]; rest != 0; rest &= rest - 1) {
      const std::size_t position = word * 64 + static_cast<std::size_t>(std::countr_zero(rest));
      touched_.push_back(static_cast<std::int32_t>(position));
      if (!n_of_.empty()) counts_.push_back(std::exchange(n_of_[position], 0));
    }
  }
}

std::span<const std::uint64_t> RowIds::ids(ServerId server) const {
  const auto s = static_cast<std::size_t>(server.value);
  return std::span(ids_).subspan(static_cast<std::size_t>(first_[s]),
                                 static_cast<std::size_t>(first_[s + 1] - first_[s]));
}

std::span<const std::int32_t> RowIds::touched(int logical_worker) const {
  const auto v = static_cast<std::size_t>(logical_worker);
  const std::size_t begin = v == 0 ? 0 : touched_ends_[v - 1];
  return std::span(touched_).subspan(begin, touched_ends_[v] - begin);
}

std::span<const std::int32_t> RowIds::touched(int logical_worker, ServerId server) const {
  const auto s = static_cast<std::size_t>(server.value);
  const auto all = touched(logical_worker);
  const auto begin = std::ranges::lower_bound(all, first_[s]);
  const auto end = std::ranges::lower_bound(all, first_[s + 1]);
  return {begin, end};
}

std::span<const std::uint32_t> RowIds::counts(int logical_worker) const {
  if (counts_.empty()) return {};
  const auto v = static_cast<std::size_t>(logical_worker);
  const std::size_t begin = v == 0 ? 0 : touched_ends_[v - 1];
  return std::span(counts_).subspan(begin, touched_ends_[v] - begin);
}

RowFeeds RowIds::feeds(int logical_worker, std::size_t lookup) const {
  const Added& a = added_[static_cast<std::size_t>(logical_worker) * lookups_.size() + lookup];
  // A TensorView may be written to; what is fed is only read.
  const auto view = [](DType dtype, Shape shape, const void* data) {
    return TensorView(dtype, std::move(shape), static_cast<std::byte*>(const_cast<void*>(data)));
  };
  const auto n = static_cast<std::int64_t>(a.n_positions);
  RowFeeds feeds{.positions = view(DType::int32, lookups_[lookup].in_bags ? Shape{n} : a.shape,
                                   positions_.data() + a.positions)};
  if (!lookups_[lookup].in_bags) return feeds;
  feeds.offsets = view(DType::int64, {static_cast<std::int64_t>(a.n_offsets)}, offsets_.data() + a.offsets);
  if (a.weights_dtype) feeds.weights = view(*a.weights_dtype, {n}, weights_.data() + a.weights);
  return feeds;
}

}  // namespace varscope
