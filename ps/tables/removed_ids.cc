#include "ps/tables/removed_ids.h"

#include <algorithm>
#include <utility>

namespace varscope {

void RemovedIds::remember(bool is_on, Clock now) {
  if (is_on == is_on_) return;
  is_on_ = is_on;
  sealed_.clear();
  open_ = {};
  const std::size_t n = is_on ? n_parts_ : 0;
  from_.assign(n, now.value);
  forgotten_.assign(n, now.value);
  n_.assign(n, 0);
}

void RemovedIds::add(std::size_t part, std::uint64_t id, std::size_t most) {
  if (!is_on_) return;
  if (open_.ids.empty()) {
    open_.ids.resize(n_parts_);
    open_.is_given_up.resize(n_parts_);
  }
  if (open_.is_given_up[part]) return;
  if (n_[part] >= most) {
    open_.is_given_up[part] = true;
    n_[part] -= static_cast<std::uint32_t>(open_.ids[part].size());
    open_.ids[part] = {};
    return;
  }
  open_.ids[part].push_back(id);
  ++n_[part];
}

void RemovedIds::seal(Clock cut) {
  if (!is_on_) return;
  drop_forgotten();
  open_.to = cut.value;
  if (!open_.ids.empty()) sealed_.push_back(std::move(open_));
  open_ = {};
}

void RemovedIds::forget(std::size_t part, Clock cut) {
  if (!is_on_) return;
  forgotten_[part] = std::max(forgotten_[part], cut.value);
  is_any_forgotten_ = true;
}

void RemovedIds::drop_forgotten() {
  if (!std::exchange(is_any_forgotten_, false)) return;
  for (std::size_t i = 0; i < n_.size(); ++i) from_[i] = std::max(from_[i], forgotten_[i]);
  for (Segment& segment : sealed_) {
    for (std::size_t i = 0; i < n_.size(); ++i) {
      if (segment.to > from_[i]) continue;
      n_[i] -= static_cast<std::uint32_t>(segment.ids[i].size());
      segment.ids[i] = {};
      segment.is_given_up[i] = false;
    }
  }
  const std::int64_t least = from_.empty() ? 0 : *std::ranges::min_element(from_);
  while (!sealed_.empty() && sealed_.front().to <= least) sealed_.pop_front();
}

bool RemovedIds::read(std::size_t part, std::int64_t since, std::vector<std::uint64_t>& ids) const {
  ids.clear();
  if (!is_on_ || since < from_[part]) return false;
  for (const Segment& segment : sealed_) {
    if (segment.to <= since) continue;
    if (segment.is_given_up[part]) return false;
    ids.insert(ids.end(), segment.ids[part].begin(), segment.ids[part].end());
  }
  return true;
}

std::size_t RemovedIds::n_bytes() const {
  std::size_t n = n_.capacity() * sizeof(std::uint32_t) +
                  (from_.capacity() + forgotten_.capacity()) * sizeof(std::int64_t);
  const auto add = [&](const Segment& segment) {
    n += segment.ids.capacity() * sizeof(std::vector<std::uint64_t>);
    for (const auto& ids : segment.ids) n += ids.capacity() * sizeof(std::uint64_t);
  };
  for (const Segment& segment : sealed_) add(segment);
  add(open_);
  return n;
}

}  // namespace varscope
