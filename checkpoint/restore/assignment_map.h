#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace varscope {

// Which variables of a model take their values from which variables of a checkpoint, as TensorFlow's
// init_from_checkpoint has it. Entries lead from the checkpoint to the model:
//
//   a/x -> b/y    the variable a/x goes to b/y
//   a/  -> b/     what is below a/ goes to what has the same name below b/
//   /   -> b/     the checkpoint's root; "/" on the right is the model's root
//
// A prefix ends at a '/': "useful_scope/" has nothing to do with "useful_scope_1". Of several entries that
// could give a variable its value the one with the longest prefix in the model wins, a variable's own name
// being the longest of all; of equal ones that with the longest prefix in the checkpoint. Entries that the
// checkpoint has no value for do not take part, so that / -> b/ gives what a/ -> b/ does not find. A
// checkpoint's variable may go to several. A plain value.
class AssignmentMap {
 public:
  struct Entry {
    std::string from;  // in the checkpoint
    std::string to;    // in the model
  };

  // Every variable by its own name.
  AssignmentMap() : AssignmentMap(std::vector<Entry>{{"/", "/"}}) {}
  // Throws Error(argument) for an empty name, a scope on one side and a variable on the other, and two
  // entries for one variable.
  explicit AssignmentMap(std::vector<Entry> entries);

  const std::vector<Entry>& entries() const { return entries_; }

  struct Unused {
    std::size_t entry;
    std::string why;  // a sentence, with the name that was probably meant
  };
  struct Result {
    std::map<std::string, std::string> sources;  // by variable of the model: the checkpoint's
    std::vector<std::string> uncaptured;         // variables of the model that no entry gives a value
    std::vector<Unused> unused;                  // entries that give no variable its value
  };
  // Names are those of whole variables, each once.
  Result resolve(const std::vector<std::string>& model, const std::vector<std::string>& checkpoint) const;

 private:
  std::vector<Entry> entries_;
};

// What is wrong with one entry by itself, in words that follow its name; "" when nothing is.
std::string entry_problem(const AssignmentMap::Entry& entry);

// Whether `name` lies in the scope ("a/"; "/" is the root, which holds everything), or is the variable.
bool is_within(const std::string& name, const std::string& scope_or_variable);
// The names, and all scopes around them with a '/' at the end: what a user may have meant.
std::vector<std::string> with_scopes(const std::vector<std::string>& names);

}  // namespace varscope
