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

constexpr std::size_t kLeastCells = 64;
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
      cells_(kLeastCells),
      first_(table.has_parts.size() + 1, 0),
      touched_ends_(static_cast<std::size_t>(n_logical_workers), 0) {
  clear();
}

void RowIds::clear() {
  if (++stamp_ == 0) {  // it has gone round: no cell may look filled
    std::ranges::fill(cells_, Cell{});
    stamp_ = 1;
  }
  logical_worker_ = 0;
  for (Added& a : added_) a.is_here = false;
  std::ranges::fill(touched_ends_, 0);
  mixed_.clear();
  seen_by_.clear();
  ids_.clear();
  positions_.clear();
  offsets_.clear();
  weights_.clear();
  touched_.clear();
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
    touched_ends_[static_cast<std::size_t>(logical_worker_)] = touched_.size();
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
    positions_.push_back(lookup.padding == id ? -1 : index_of(id));
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
      positions_.push_back(index_of(id));
      if (weights == nullptr) continue;
      const auto* bytes = reinterpret_cast<const std::byte*>(weights + i);
      weights_.insert(weights_.end(), bytes, bytes + sizeof(T));
    }
    offsets_.push_back(static_cast<std::int64_t>(positions_.size() - begin));
  }
  // The weights of the next lookup begin where their type may.
  weights_.resize((weights_.size() + 7) / 8 * 8);
}

// The index of an id in mixed_, which it is added to where it is new.
std::int32_t RowIds::index_of(std::uint64_t id) {
  const std::uint64_t mixed = mix_row_id(id);
  const std::size_t mask = cells_.size() - 1;
  std::size_t at = mixed & mask;  // part and order are by the highest bits
  while (cells_[at].stamp == stamp_ && cells_[at].mixed != mixed) at = (at + 1) & mask;
  const bool is_new = cells_[at].stamp != stamp_;
  if (is_new) cells_[at] = {mixed, stamp_, static_cast<std::int32_t>(mixed_.size())};
  const std::int32_t index = cells_[at].index;
  if (is_new) {
    mixed_.push_back(mixed);
    seen_by_.push_back(-1);
  }
  std::int32_t& seen_by = seen_by_[static_cast<std::size_t>(index)];
  if (seen_by != logical_worker_) {
    seen_by = logical_worker_;
    touched_.push_back(index);
  }
  if (is_new && mixed_.size() * 2 > cells_.size()) grow();
  return index;
}

void RowIds::grow() {
  cells_.assign(cells_.size() * 2, Cell{});
  const std::size_t mask = cells_.size() - 1;
  for (std::size_t i = 0; i < mixed_.size(); ++i) {
    std::size_t at = mixed_[i] & mask;
    while (cells_[at].stamp == stamp_) at = (at + 1) & mask;
    cells_[at] = {mixed_[i], stamp_, static_cast<std::int32_t>(i)};
  }
}

void RowIds::finish() {
  for (; logical_worker_ < static_cast<int>(touched_ends_.size()); ++logical_worker_)
    touched_ends_[static_cast<std::size_t>(logical_worker_)] = touched_.size();
  sort();
  group_by_server();
  const std::vector<Key>& keys = first_.size() > 2 ? keys_by_server_ : keys_;
  rank_.resize(keys.size());
  ids_.resize(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    rank_[static_cast<std::size_t>(keys[i].index)] = static_cast<std::int32_t>(i);
    ids_[i] = unmix_row_id(keys[i].mixed);
  }
  const auto zeros = static_cast<std::int32_t>(keys.size());
  for (std::int32_t& p : positions_) p = p < 0 ? zeros : rank_[static_cast<std::size_t>(p)];
  mark_touched();
}

// keys_: mixed_ in ascending order. Mixed ids are spread evenly, so that buckets by their highest bits have
// about 4 each; where they have not, because somebody has chosen the ids so, a bucket is sorted as a whole.
void RowIds::sort() {
  const std::size_t n = mixed_.size();
  const int bits = std::clamp(static_cast<int>(std::bit_width(n / 4)), 1, 20);
  const auto bucket_of = [bits](std::uint64_t mixed) {
    return static_cast<std::size_t>(mixed >> (64 - bits));
  };
  buckets_.assign((std::size_t{1} << bits) + 1, 0);
  for (const std::uint64_t mixed : mixed_) ++buckets_[bucket_of(mixed) + 1];
  for (std::size_t b = 1; b < buckets_.size(); ++b) buckets_[b] += buckets_[b - 1];
  keys_.resize(n);
  for (std::size_t i = 0; i < n; ++i)
    keys_[buckets_[bucket_of(mixed_[i])]++] = {mixed_[i], static_cast<std::int32_t>(i)};
  std::size_t begin = 0;  // the scatter has left each bucket's end in its place
  for (std::size_t b = 0; b + 1 < buckets_.size(); ++b) {
    const std::size_t end = buckets_[b];
    if (end - begin > kSmallBucket) {
      std::sort(keys_.begin() + static_cast<std::ptrdiff_t>(begin),
                keys_.begin() + static_cast<std::ptrdiff_t>(end),
                [](const Key& x, const Key& y) { return x.mixed < y.mixed; });
    } else if (end - begin > 1) {
      sort_small(keys_.data() + begin, keys_.data() + end);
    }
    begin = end;
  }
}

// keys_by_server_, in the order of keys_ within each; with one server keys_ are that.
void RowIds::group_by_server() {
  std::ranges::fill(first_, 0);
  first_.back() = static_cast<std::int64_t>(keys_.size());
  if (first_.size() <= 2) return;
  const auto server_of = [this](const Key& key) {
    return static_cast<std::size_t>(
        table_.owner[static_cast<std::size_t>(row_part(key.mixed, table_.spec.parts))].value);
  };
  for (const Key& key : keys_) ++first_[server_of(key)];
  std::int64_t at = 0;
  for (std::int64_t& first : first_) at += std::exchange(first, at);
  first_.back() = static_cast<std::int64_t>(keys_.size());
  keys_by_server_.resize(keys_.size());
  for (const Key& key : keys_) keys_by_server_[static_cast<std::size_t>(first_[server_of(key)]++)] = key;
  for (std::size_t s = first_.size() - 1; s > 0; --s) first_[s] = first_[s - 1];
  first_[0] = 0;
  first_.back() = static_cast<std::int64_t>(keys_.size());
}

// touched_: of each logical worker its positions, in ascending order.
void RowIds::mark_touched() {
  std::size_t begin = 0;
  for (const std::size_t end : touched_ends_) {
    marks_.assign((ids_.size() + 63) / 64, 0);
    for (std::size_t i = begin; i < end; ++i) {
      const auto position = static_cast<std::size_t>(rank_[static_cast<std::size_t>(touched_[i])]);
      marks_[position / 64] |= std::uint64_t{1} << (position % 64);
    }
    for (std::size_t word = 0; word < marks_.size(); ++word) {
      for (std::uint64_t rest = marks_[word]; rest != 0; rest &= rest - 1)
        touched_[begin++] = static_cast<std::int32_t>(word * 64) + std::countr_zero(rest);
    }
    begin = end;
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
