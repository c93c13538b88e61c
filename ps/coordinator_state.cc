#include "ps/coordinator_state.h"

#include <fmt/format.h>

#include <cstdio>
#include <string_view>

#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/base/text.h"

namespace varscope {
namespace {

constexpr std::string_view kWeightLine = "weight: ";
constexpr std::string_view kStopMark = "#early-stop ";

}  // namespace

std::string to_manifest_text(const CoordinatorState& state) {
  std::string text = to_text(state);
  if (state.epoch.weight > 0)
    text += fmt::format("{}{:a} {:a}\n", kWeightLine, state.epoch.weight, state.epoch.correct);
  text += state.run + (state.stop ? std::string(kStopMark) + to_text(*state.stop) : "");
  return state.stream ? text + stream_line(*state.stream) : text;
}

CoordinatorState from_manifest_text(const std::string& text) {
  auto state = from_text<CoordinatorState>(text, "the coordinator's state in the checkpoint");
  const std::size_t end = text.find('\n');
  if (end == std::string::npos) return state;
  state.run = text.substr(end + 1);
  if (state.run.starts_with(kWeightLine)) {
    const std::size_t line_end = state.run.find('\n');
    const int n = std::sscanf(state.run.c_str() + kWeightLine.size(), "%la %la", &state.epoch.weight,
                              &state.epoch.correct);
    if (n != 2 || line_end == std::string::npos)
      fail(ErrorKind::data, "the coordinator's state in the checkpoint: damaged sums of weights");
    state.run.erase(0, line_end + 1);
  }
  state.stream = take_stream_line(state.run);
  if (const auto stop = take_last_line(state.run, kStopMark))
    state.stop = from_text<StopState>(*stop + "\n", "the state of early stopping in the checkpoint");
  return state;
}

}  // namespace varscope
