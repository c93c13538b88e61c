#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/variables/variable_scope.h"
#include "tests/support/thrown.h"

namespace varscope::testing {

// One behaviour of variable scopes, TensorFlow's unless docs/variable_scopes.md says otherwise: a test of its
// own, named after it.
struct ScopeCase {
  const char* name;
  void (*check)();
};

class ScopeCaseTest : public ::testing::TestWithParam<ScopeCase> {};

inline std::string case_name(const ::testing::TestParamInfo<ScopeCase>& info) { return info.param.name; }

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

// Registers an array of cases as the tests of a suite.
#define VARSCOPE_SCOPE_CASES(suite, cases)                    \
  class suite : public ::varscope::testing::ScopeCaseTest {}; \
  TEST_P(suite, Holds) { GetParam().check(); }                \
  INSTANTIATE_TEST_SUITE_P(Cases, suite, ::testing::ValuesIn(cases), ::varscope::testing::case_name)
