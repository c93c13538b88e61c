#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <utility>

#include "common/base/error.h"

namespace varscope::testing {

// The Error that `f` throws, as "kind: message"; "no error" when it throws none.
template <class F>
std::string thrown(F&& f) {
  try {
    std::forward<F>(f)();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.what();
  }
  return "no error";
}

// Expects that `f` throws an Error of this kind whose message has all the words.
template <class F>
void expect_thrown(F&& f, ErrorKind kind, std::initializer_list<const char*> words) {
  const std::string text = thrown(std::forward<F>(f));
  EXPECT_EQ(text.rfind(std::string(to_string(kind)) + ": ", 0), 0U) << text;
  for (const char* word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " in: " << text;
}

}  // namespace varscope::testing

#define EXPECT_THAT_THROWN(expression, kind, ...) \
  ::varscope::testing::expect_thrown([&] { (void)(expression); }, kind, __VA_ARGS__)
