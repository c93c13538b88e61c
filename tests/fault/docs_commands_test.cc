// The commands of pages that say that a test runs them: they work, and print what the page says.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

// The blocks of a page that stand below "<!-- run -->".
std::string commands_of(const std::string& page) {
  const std::string text = read_text(std::string(VARSCOPE_CONFIGS) + "/../docs/" + page);
  const std::string mark = "<!-- run -->\n```sh\n";
  std::string commands;
  for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos;) {
    const std::size_t begin = at + mark.size(), end = text.find("\n```\n", begin);
    commands += text.substr(begin, end - begin) + "\n";
    at = end;
  }
  return commands;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

// Free a moment ago; whoever takes it in between makes the test fail with words that say so.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), n), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &n), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

// Each comment is what is printed there, "..." being anything.
void expect_printed(const std::string& commands, const std::string& out) {
  std::size_t at = 0;
  for (const std::string& line : lines_of(commands)) {
    if (!line.starts_with("# ")) continue;
    std::string rest = line.substr(2);
    while (!rest.empty()) {
      const std::size_t gap = rest.find("...");
      const std::string part = rest.substr(0, gap);
      const std::size_t found = out.find(part, at);
      ASSERT_NE(found, std::string::npos) << part << "\nis not behind place " << at << " of\n" << out;
      at = found + part.size();
      rest = gap == std::string::npos ? "" : rest.substr(gap + 3);
    }
  }
}

class Page : public ::testing::TestWithParam<const char*> {};

TEST_P(Page, ItsCommandsWorkAndPrintWhatItSays) {
  const std::string of_page = commands_of(GetParam());
  ASSERT_FALSE(of_page.empty());
  const std::string port = std::to_string(free_port());
  const std::string serve = "varscope serve runs/people";
  std::string script = replaced(of_page, serve, serve + " --listen 127.0.0.1:" + port);
  script = replaced(script, "127.0.0.1:8500", "127.0.0.1:" + port);
  const ScratchDir dir;
  std::filesystem::create_directory(dir / "bin");
  std::filesystem::create_symlink(VARSCOPE_BINARY, dir / "bin/varscope");
  write_text(dir / "script", "set -euo pipefail\ncd " + dir.path() + "\n" + script);
  Command command{{"/bin/bash", dir / "script"}};
  command.environment["PATH"] = dir / "bin:" + std::getenv("PATH");
  const Ended ended = run(command, 120 * kSlowness);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(ended.errors().empty()) << ended.all();
  expect_printed(of_page, ended.out);
}

INSTANTIATE_TEST_SUITE_P(Docs, Page, ::testing::Values("serving.md", "online.md", "debugging.md"),
                         [](const auto& page) {
                           const std::string name = page.param;
                           return name.substr(0, name.find('.'));
                         });

}  // namespace
}  // namespace varscope::testing
