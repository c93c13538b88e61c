#include "launch/job/input_words.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"
#include "worker/data/raw_ids.h"
#include "worker/data/source_registry.h"
#include "worker/data/table_schema.h"
#include "worker/data/text.h"

namespace varscope {

InputWords::InputWords(const SavedModel& model, const InputSpec& input)
    : input_(input.name), numbers_(input.features == Features::row_ids ? input.id_type : IdType::int64) {
  const DataSourceConfig& train = model.job.data.train;
  if (train.get<TextSource>() != nullptr || train.get<SkipgramSource>() != nullptr) {
    if (model.schema.empty()) return;
    std::uint64_t id = 0;
    for (std::string& word : vocabulary_from_schema(model.schema)) add(id++, std::move(word));
  } else if (is_table(train) && !model.schema.empty()) {
    take_columns(model.schema);
  }
  if (has_vocabulary()) numbers_.reset();
}

// Hash buckets have no words, and id first_id is any word that is not in the vocabulary.
void InputWords::take_columns(const std::string& schema) {
  const TableSchema table = schema_from_json(schema);
  const auto input = std::ranges::find(table.inputs, input_, &TableInput::name);
  if (input == table.inputs.end()) return;
  const bool several = input->columns.size() > 1;
  for (const TableColumn& column : input->columns) {
    if (several) columns_.push_back(column.name);
    auto id = static_cast<std::uint64_t>(column.first_id);
    for (const std::string& word : column.vocabulary) add(++id, several ? column.name + "=" + word : word);
  }
}

void InputWords::add(std::uint64_t id, std::string word) {
  ids_.emplace(word, id);
  words_.emplace(id, std::move(word));
}

std::uint64_t InputWords::id_of(const std::string& word) const {
  if (!numbers_) {
    if (const auto found = ids_.find(word); found != ids_.end()) return found->second;
    std::vector<std::string> known;
    known.reserve(ids_.size());
    for (const auto& [text, id] : ids_) known.push_back(text);
    const std::string how = columns_.empty() ? "" : "; say COLUMN=WORD, for columns " + comma_list(columns_);
    fail(ErrorKind::config, "\"{}\" is none of the {} words of input \"{}\"{}{}", word,
         with_commas(std::ssize(known)), input_, did_you_mean(word, known), how);
  }
  if (*numbers_ != IdType::string) {
    if (const auto id = number_id_in(*numbers_, word)) return *id;
    fail(ErrorKind::config, "the ids of input \"{}\" are numbers: {}", input_, no_id_text(*numbers_, word));
  }
  if (columns_.empty()) return word_id(word, 0);
  const std::size_t end = word.find('=');
  const auto column = std::ranges::find(columns_, word.substr(0, end));
  if (end == std::string::npos || column == columns_.end()) {
    fail(ErrorKind::config, "\"{}\": input \"{}\" has several columns: say COLUMN=WORD, for columns {}", word,
         input_, comma_list(columns_));
  }
  return word_id(word.substr(end + 1), static_cast<std::size_t>(column - columns_.begin()));
}

std::optional<std::uint64_t> InputWords::shown_hash(const std::string& word) const {
  constexpr std::size_t kDigits = 16;
  if (numbers_ != IdType::string || word.size() != 1 + kDigits || word[0] != '#') return std::nullopt;
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(word.data() + 1, word.data() + word.size(), id, 16);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return id;
}

std::optional<std::string> InputWords::word_of(std::uint64_t id) const {
  if (numbers_) return id_text(*numbers_, id);
  const auto word = words_.find(id);
  return word == words_.end() ? std::nullopt : std::optional(word->second);
}

}  // namespace varscope
