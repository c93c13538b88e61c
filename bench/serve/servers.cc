#include "bench/serve/servers.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "bench/serve/load_client.h"
#include "common/base/clock.h"

namespace varscope::bench {
namespace {

constexpr double kMostToEnd_s = 10;
constexpr std::string_view kListens = "listening on http://127.0.0.1:";

std::int64_t deadline_in(double s) { return now_ns() + static_cast<std::int64_t>(s * 1e9); }
void pause_briefly() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

// The port of a line that is whole; 0 without one.
int port_in(const std::string& text) {
  const std::size_t at = text.find(kListens);
  if (at == std::string::npos || text.find('\n', at) == std::string::npos) return 0;
  return std::stoi(text.substr(at + kListens.size()));
}

}  // namespace

ServerProcess::ServerProcess(const Args& command, double most_s, End end)
    : name_(command.front()), end_(end) {
  pid_ = start_command(command, dir_ / "output", kServerCore);
  const std::int64_t until = deadline_in(most_s);
  while (port_ == 0) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      give_up("has ended");
    }
    if (now_ns() > until) give_up(fmt::format("does not listen within {} s", most_s));
    pause_briefly();
    port_ = port_in(text_of_file(dir_ / "output"));
  }
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) stop();
}

void ServerProcess::stop() const {
  if (end_ == End::by_itself) {
    kill(pid_, SIGTERM);
    for (const std::int64_t until = deadline_in(kMostToEnd_s); now_ns() < until; pause_briefly()) {
      if (waitpid(pid_, nullptr, WNOHANG) == pid_) return;
    }
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void ServerProcess::give_up(const std::string& why) const {
  const std::string text = fmt::format("{} {}:\n{}", name_, why, text_of_file(dir_ / "output"));
  if (pid_ > 0) stop();
  throw std::runtime_error(text);
}

void ServerProcess::wait_until_ready(const std::string& path, double most_s) const {
  const std::int64_t until = deadline_in(most_s);
  std::string answer;
  while (now_ns() < until) {
    try {
      answer = ask_once(port_, http_get(path));
    } catch (const std::runtime_error& e) {
      answer = e.what();  // some listen a moment after they say so
    }
    if (answer.substr(0, 12) == "HTTP/1.1 200") return;
    pause_briefly();
  }
  throw std::runtime_error(fmt::format("{} is not ready after {} s: {}\n{}", name_, most_s, answer,
                                       text_of_file(dir_ / "output")));
}

double cpu_seconds_of(pid_t pid) {
  double seconds = 0;
  for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid))) {
    std::ifstream in(task.path() / "schedstat");
    std::int64_t ns = 0;
    if (in >> ns) seconds += static_cast<double>(ns) * 1e-9;
  }
  return seconds;
}

std::optional<double> ServerProcess::metric(const std::string& name) const {
  const std::string text = ask_once(port_, http_get("/metrics"));
  const std::size_t at = text.find("\n" + name);
  const std::size_t space = at == std::string::npos ? at : text.find(' ', at);
  return space == std::string::npos ? std::nullopt : std::optional(std::stod(text.substr(space + 1)));
}

}  // namespace varscope::bench
