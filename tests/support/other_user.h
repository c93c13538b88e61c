#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

namespace varscope::testing {

// In its scope root is a user to whom the modes of files apply; whoever else runs the test is one anyway. Of
// the process: no other thread may look at files meanwhile.
class OtherUser {
 public:
  OtherUser() : was_root_(::geteuid() == 0) { EXPECT_TRUE(!was_root_ || ::seteuid(kNobody) == 0); }
  ~OtherUser() { EXPECT_TRUE(!was_root_ || ::seteuid(0) == 0); }
  OtherUser(const OtherUser&) = delete;
  OtherUser& operator=(const OtherUser&) = delete;

 private:
  static constexpr uid_t kNobody = 65534;
  bool was_root_;
};

}  // namespace varscope::testing
