#include "worker/graph/local_states.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

std::size_t row_bytes(const TensorView& view) {
  return view.shape()[0] == 0 ? 0 : view.n_bytes() / static_cast<std::size_t>(view.shape()[0]);
}

std::string to_hex(const std::byte* data, std::size_t n) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * n);
  for (std::size_t i = 0; i < n; ++i) {
    text += kDigits[std::to_integer<unsigned>(data[i]) >> 4U];
    text += kDigits[std::to_integer<unsigned>(data[i]) & 15U];
  }
  return text;
}

int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

// REQUIRES text.size() == 2 * n. False for a character that is no digit.
bool from_hex(std::string_view text, std::byte* to, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    to[i] = static_cast<std::byte>(high << 4 | low);
  }
  return true;
}

}  // namespace

LocalStates::LocalStates(const Graph& graph, int n_logical_workers, std::int64_t max_rows, std::uint64_t seed)
    : seed_(seed) {
  for (const Variable* v : graph.variables()) {
    if (v->is_local() && !v->shape().fully_known()) variables_.push_back(v);
  }
  states_.resize(static_cast<std::size_t>(n_logical_workers));
  for (State& state : states_) {
    for (const Variable* v : variables_) {
      state.value.emplace_back(v->dtype(), with_batch(v->shape(), max_rows));
      state.next.emplace_back(v->dtype(), with_batch(v->shape(), max_rows));
    }
  }
  reset();
  check_size();
}

// A worker's state travels in one message, as hexadecimal digits.
void LocalStates::check_size() const {
  std::size_t n = 0;
  for (const State& state : states_) {
    for (const Tensor& t : state.value) n += t.n_bytes();
  }
  if (n <= kMaxBytes) return;
  fail(ErrorKind::config,
       "the local variables of one worker, from \"{}\" on, have {} bytes; at most {} can be saved: use "
       "more workers, a smaller train.batch or fewer units",
       variables_.front()->name(), n, kMaxBytes);
}

void LocalStates::reset() {
  for (State& state : states_) {
    for (std::size_t i = 0; i < variables_.size(); ++i)
      variables_[i]->spec().initializer.fill(state.value[i].view(), seed_, variables_[i]->name(), 0);
  }
}

void LocalStates::bind(Executor& executor, int logical_worker) const {
  const State& state = states_[static_cast<std::size_t>(logical_worker)];
  for (std::size_t i = 0; i < variables_.size(); ++i)
    executor.bind_state(*variables_[i], state.value[i].view(), state.next[i].view());
}

void LocalStates::advance(int logical_worker) {
  State& state = states_[static_cast<std::size_t>(logical_worker)];
  std::swap(state.value, state.next);
}

void LocalStates::save(int logical_worker, std::int64_t first_row, std::int64_t n,
                       std::vector<LocalRows>& out) const {
  for (std::size_t i = 0; i < variables_.size(); ++i) {
    const TensorView& value = states_[static_cast<std::size_t>(logical_worker)].value[i].view();
    const std::size_t bytes = row_bytes(value);
    for (std::int64_t row = 0; row < n; ++row) {
      out.push_back({variables_[i]->name(), to_string(value.dtype()), first_row + row,
                     to_hex(value.bytes() + static_cast<std::size_t>(row) * bytes, bytes)});
    }
  }
}

void LocalStates::load(int logical_worker, std::int64_t first_row, std::int64_t n,
                       const std::vector<LocalRows>& saved) {
  std::map<std::pair<std::string_view, std::int64_t>, const LocalRows*> index;
  for (const LocalRows& r : saved) index[{r.variable, r.row}] = &r;
  for (std::size_t i = 0; i < variables_.size(); ++i) {
    const TensorView& value = states_[static_cast<std::size_t>(logical_worker)].value[i].view();
    const std::size_t bytes = row_bytes(value);
    const std::string& name = variables_[i]->name();
    for (std::int64_t row = 0; row < n; ++row) {
      const auto it = index.find({name, first_row + row});
      const LocalRows* found = it == index.end() ? nullptr : it->second;
      if (found == nullptr) {
        fail(ErrorKind::checkpoint, "the checkpoint has no row {} of local variable \"{}\"", first_row + row,
             name);
      }
      const bool fits = found->dtype == to_string(value.dtype()) && found->hex.size() == 2 * bytes;
      if (!fits || !from_hex(found->hex, value.bytes() + static_cast<std::size_t>(row) * bytes, bytes)) {
        fail(ErrorKind::checkpoint,
             "local variable \"{}\": row {} has {} digits of {} in the checkpoint; {} of {} were expected",
             name, found->row, found->hex.size(), found->dtype, 2 * bytes, to_string(value.dtype()));
      }
    }
  }
}

}  // namespace varscope
