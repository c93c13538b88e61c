#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/job/saved_model.h"

namespace varscope {

// How people call the ids of one of a model's inputs, as the checkpoint knows them: words of a text or of
// columns of a table, numbers, or texts of which only the hashes are kept. Where an input has several columns
// a word is "column=word". A value; safe from any thread.
class InputWords {
 public:
  // `input`: one of the model's, with ids. Throws Error(data) for a schema that cannot be read.
  InputWords(const SavedModel& model, const InputSpec& input);

  // Whether ids are those of known words.
  bool has_vocabulary() const { return !words_.empty(); }
  // The id of a row, 64 bits as sparse tables have them. Throws Error(config) for a word that is not there,
  // with the one that was probably meant, and for what is no number.
  std::uint64_t id_of(const std::string& word) const;
  // The id behind a text "#00c0ffee00c0ffee", where word_of() calls ids so; nothing for other texts.
  std::optional<std::uint64_t> shown_hash(const std::string& word) const;
  // Of ids of texts the hash. Nothing for an id that is no word of the vocabulary.
  std::optional<std::string> word_of(std::uint64_t id) const;

 private:
  void take_columns(const std::string& schema);
  void add(std::uint64_t id, std::string word);

  std::string input_;
  std::optional<IdType> numbers_;     // ids that are not words: of which type
  std::vector<std::string> columns_;  // of an input of several, by place
  std::map<std::uint64_t, std::string> words_;
  std::map<std::string, std::uint64_t> ids_;
};

}  // namespace varscope
