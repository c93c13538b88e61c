#pragma once

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <utility>
#include <vector>

#include "common/base/types.h"

namespace varscope {

// The ids from 0 to n - 1, for a loop: for (WorkerId w : IdRange<WorkerId>(n)).
template <class Id>
class IdRange {
 public:
  using Int = decltype(Id::value);
  class Iterator {
   public:
    explicit Iterator(Int at) : at_(at) {}
    Id operator*() const { return Id(at_); }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    friend bool operator==(Iterator, Iterator) = default;

   private:
    Int at_;
  };

  explicit IdRange(std::integral auto n) : n_(static_cast<Int>(n)) {}
  Iterator begin() const { return Iterator(0); }
  Iterator end() const { return Iterator(n_); }

 private:
  Int n_;
};

// A vector whose subscript is a StrongId: what belongs to each bucket, server or worker. Like std::vector, a
// subscript is not checked; numbers from elsewhere go through has() first. Owns its elements. `Items` is
// another sequence where references must stay valid while elements are added: std::deque<T>.
template <class Id, class T, class Items = std::vector<T>>
class IdVector {
 public:
  using value_type = T;
  using iterator = typename Items::iterator;
  using const_iterator = typename Items::const_iterator;

  IdVector() = default;
  explicit IdVector(std::integral auto n) : items_(static_cast<std::size_t>(n)) {}
  IdVector(std::integral auto n, const T& value) : items_(static_cast<std::size_t>(n), value) {}
  IdVector(std::initializer_list<T> items) : items_(items) {}

  typename Items::reference operator[](Id id) { return items_[static_cast<std::size_t>(id.value)]; }
  typename Items::const_reference operator[](Id id) const {
    return items_[static_cast<std::size_t>(id.value)];
  }
  bool has(Id id) const { return id.value >= 0 && static_cast<std::size_t>(id.value) < items_.size(); }

  bool empty() const { return items_.empty(); }
  std::size_t size() const { return items_.size(); }
  IdRange<Id> ids() const { return IdRange<Id>(items_.size()); }
  // The id of the next element to be added.
  Id next_id() const { return Id(static_cast<decltype(Id::value)>(items_.size())); }

  typename Items::reference back() { return items_.back(); }
  typename Items::const_reference back() const { return items_.back(); }
  iterator begin() { return items_.begin(); }
  iterator end() { return items_.end(); }
  const_iterator begin() const { return items_.begin(); }
  const_iterator end() const { return items_.end(); }

  void push_back(T item) { items_.push_back(std::move(item)); }
  template <class... Parts>
  typename Items::reference emplace_back(Parts&&... parts) {
    return items_.emplace_back(std::forward<Parts>(parts)...);
  }
  void assign(std::integral auto n, const T& value) { items_.assign(static_cast<std::size_t>(n), value); }

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& items_;
  }
  friend bool operator==(const IdVector&, const IdVector&) = default;

 private:
  Items items_;
};

}  // namespace varscope
