#include "common/config/data_source.h"

#include <algorithm>
#include <vector>

#include "common/base/error.h"
#include "common/config/source_keys.h"

namespace varscope {
namespace {

std::vector<SourceKeyType>& types() {
  static std::vector<SourceKeyType> all = built_in_source_keys();
  return all;
}

}  // namespace

std::span<const SourceKeyType> source_key_types() { return types(); }

void add_source_key_type(SourceKeyType type) {
  if (std::ranges::any_of(types(), [&](const SourceKeyType& t) { return t.name == type.name; }))
    fail(ErrorKind::argument, "there is a data source of type \"{}\" already", type.name);
  types().push_back(std::move(type));
}

DataSourceConfig::DataSourceConfig() : DataSourceConfig("digits", DigitsSource{}) {}

DataSourceConfig::DataSourceConfig(const DataSourceConfig& other)
    : type_(other.type_), keys_(other.keys_->clone()) {}

DataSourceConfig& DataSourceConfig::operator=(const DataSourceConfig& other) {
  type_ = other.type_;
  keys_ = other.keys_->clone();
  return *this;
}

void DataSourceConfig::describe(Keys& keys) {
  VariantRef variant{.current = type_,
                     .set =
                         [this](std::size_t i) {
                           type_ = types()[i].name;
                           keys_ = types()[i].make();
                         },
                     .describe = [this](Keys& k) { keys_->describe(k); },
                     .describe_type = [](std::size_t i, Keys& k) { types()[i].make()->describe(k); }};
  for (const SourceKeyType& t : types()) {
    variant.names.push_back(t.name);
    variant.summaries.push_back(t.summary);
  }
  keys.required_variant("type", variant, "where samples come from");
}

}  // namespace varscope
