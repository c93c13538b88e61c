#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "common/config/binder.h"
#include "common/config/data_split.h"

namespace varscope {

// The keys of one type of data source, without their type. A value behind a pointer.
class SourceKeys {
 public:
  virtual ~SourceKeys() = default;
  virtual std::unique_ptr<SourceKeys> clone() const = 0;
  virtual void describe(Keys& keys) = 0;
  // What the place in the file decides: data.train or data.test.
  virtual void resolve(DataSplit position) = 0;
  // Samples are answered with numbers, not classes, as far as the keys tell.
  virtual bool predicts_numbers() const = 0;
  virtual bool equals(const SourceKeys& other) const = 0;
};

// Of a struct S with `void describe(Keys&)`, operator== and, where it has a use for them, `void
// resolve(DataSplit position)` and `bool predicts_numbers() const`.
template <class S>
class SourceKeysOf final : public SourceKeys {
 public:
  S value{};
  std::unique_ptr<SourceKeys> clone() const override { return std::make_unique<SourceKeysOf>(*this); }
  void describe(Keys& keys) override { value.describe(keys); }
  void resolve(DataSplit position) override {
    if constexpr (requires { value.resolve(position); }) value.resolve(position);
  }
  bool predicts_numbers() const override {
    if constexpr (requires { value.predicts_numbers(); }) return value.predicts_numbers();
    return false;
  }
  bool equals(const SourceKeys& other) const override {
    const auto* same = dynamic_cast<const SourceKeysOf*>(&other);
    return same != nullptr && same->value == value;
  }
};

// data.split: part of the samples of data.train is not trained on, but evaluated. Which ones, is a function
// of the seed and their numbers (worker/data/split.h).
struct SplitConfig {
  double test = 0.2;  // about this share of them
  std::int64_t seed = 1;
  void describe(Keys& keys);
  bool operator==(const SplitConfig&) const = default;
};

// One of data.train and data.test: a type, and that type's keys. A value.
class DataSourceConfig {
 public:
  DataSourceConfig();  // digits
  template <class S>
  DataSourceConfig(std::string type, S keys) : type_(std::move(type)) {
    auto made = std::make_unique<SourceKeysOf<S>>();
    made->value = std::move(keys);
    keys_ = std::move(made);
  }
  DataSourceConfig(const DataSourceConfig& other);
  DataSourceConfig& operator=(const DataSourceConfig& other);
  DataSourceConfig(DataSourceConfig&&) noexcept = default;
  DataSourceConfig& operator=(DataSourceConfig&&) noexcept = default;
  ~DataSourceConfig() = default;

  const std::string& type() const { return type_; }
  // The keys, where they are a struct S; else null.
  template <class S>
  S* get() {
    auto* keys = dynamic_cast<SourceKeysOf<S>*>(keys_.get());
    return keys == nullptr ? nullptr : &keys->value;
  }
  template <class S>
  const S* get() const {
    const auto* keys = dynamic_cast<const SourceKeysOf<S>*>(keys_.get());
    return keys == nullptr ? nullptr : &keys->value;
  }
  void resolve(DataSplit position) { keys_->resolve(position); }
  bool predicts_numbers() const { return keys_->predicts_numbers(); }
  void describe(Keys& keys);
  friend bool operator==(const DataSourceConfig& a, const DataSourceConfig& b) {
    return a.type_ == b.type_ && a.keys_->equals(*b.keys_);
  }

 private:
  std::string type_;
  std::unique_ptr<SourceKeys> keys_;
};

// A type of source as a config sees it. How it is opened: worker/data/source_registry.h.
struct SourceKeyType {
  std::string name;
  std::string summary;  // "numbers and words from comma separated text"
  std::function<std::unique_ptr<SourceKeys>()> make;
};

// Of this process: every rank reads the config, those too that open no data. The built-in ones are there
// from the start.
std::span<const SourceKeyType> source_key_types();
// Before any config is read, from one thread. Throws Error(argument) if there is one of this name.
void add_source_key_type(SourceKeyType type);

template <class S>
SourceKeyType source_key_type(std::string name, std::string summary) {
  return {std::move(name), std::move(summary), [] { return std::make_unique<SourceKeysOf<S>>(); }};
}

}  // namespace varscope
