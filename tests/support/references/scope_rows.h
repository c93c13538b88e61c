#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/variables/variable_scope.h"
#include "tests/support/thrown.h"

namespace varscope::testing {

// One row of the table of variable scopes (TensorFlow's observable behaviour, numbered), or a case of it: a
// test of its own, named "Row11_AlreadyExists".
struct ScopeRow {
  int number;
  const char* name;
  void (*check)();
};

class ScopeRowTest : public ::testing::TestWithParam<ScopeRow> {};

inline std::string row_name(const ::testing::TestParamInfo<ScopeRow>& info) {
  return "Row" + std::to_string(info.param.number) + "_" + info.param.name;
}

using Names = std::vector<std::string>;

inline Names names(const std::vector<const Variable*>& variables) {
  Names all;
  for (const Variable* v : variables) all.push_back(v->name());
  return all;
}

// An argument error with each of `words` in its message.
inline void expect_words(const std::string& error, const std::vector<std::string>& words) {
  EXPECT_TRUE(error.starts_with("argument: ")) << error;
  for (const std::string& w : words)
    EXPECT_NE(error.find(w), std::string::npos) << "\"" << w << "\" in: " << error;
}

}  // namespace varscope::testing

// Registers an array of rows as the tests of suite `table`.
#define VARSCOPE_SCOPE_ROWS(table, rows)                     \
  class table : public ::varscope::testing::ScopeRowTest {}; \
  TEST_P(table, Holds) { GetParam().check(); }               \
  INSTANTIATE_TEST_SUITE_P(Rows, table, ::testing::ValuesIn(rows), ::varscope::testing::row_name)
