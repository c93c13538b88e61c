// What the coordinator does about a loss, a norm or a value that is not finite.
#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "ps/coordinator.h"

namespace varscope {

void Coordinator::release_unless_not_finite(Clock clock) {
  if (on_nan_ == OnNan::warn || !(inquiry_ || not_finite_since_)) release(clock);
}

void Coordinator::inquire(NotFiniteStep step) {
  if (not_finite_since_ || inquiry_) return;
  inquiry_ = Inquiry{std::move(step), owners_.size()};
  MessageHeader header = make_header(MessageType::finite_request, 0, Clock(inquiry_->step.step));
  for (ServerId s : owners_) transport_.send_message(cluster_.rank_of(s), header);
  if (owners_.empty()) finish_inquiry();
}

void Coordinator::on_finite_report(const Message& message) {
  auto report = from_binary<FiniteReport>(message.body, "a report of what is not finite");
  if (!cluster_.server_at(message.from) || (report.is_answer && !inquiry_) ||
      (!report.is_answer && report.findings.empty())) {
    fail(ErrorKind::protocol, "rank {} sent a {} that is not due", message.from.value,
         to_string(type_of(message.header)));
  }
  if (!report.is_answer) {
    const std::int64_t clock = report.findings.front().clock;
    // Of a step under way the losses are not known yet, nor what else may be found of one before it.
    if (clock > completed_.value) {
      suspected_ = std::min(suspected_.value_or(Clock(clock)), Clock(clock));
    } else {
      inquire({.step = clock});
    }
    return;
  }
  std::ranges::move(report.findings, std::back_inserter(inquiry_->step.findings));
  inquiry_->step.n_more += report.n_more;
  if (--inquiry_->n_due == 0) finish_inquiry();
}

// The earliest step counts: what later ones made follows from it.
void Coordinator::finish_inquiry() {
  NotFiniteStep step = std::exchange(inquiry_, std::nullopt)->step;
  const std::int64_t asked = step.step;
  for (const NotFiniteFinding& f : step.findings) step.step = std::min(step.step, f.clock);
  if (step.step < asked) step.loss = step.test_loss = "";
  if (std::erase_if(step.findings, [&](const NotFiniteFinding& f) { return f.clock != step.step; }) > 0)
    step.n_more = 0;
  if (step.findings.empty() && step.loss.empty() && step.test_loss.empty()) return;
  step.is_first = step.step == train_.first.value && !step.findings.empty();
  NotFiniteSummary summary{Clock(step.step), text_of(step), {}, on_nan_ == OnNan::stop};
  for (const NotFiniteFinding& f : step.findings) {
    if (!f.variable.empty()) summary.variables.push_back(f.variable);
  }
  std::ranges::sort(summary.variables);
  const auto same = std::ranges::unique(summary.variables);
  summary.variables.erase(same.begin(), same.end());
  not_finite_since_ = summary.clock;
  if (summary.ends) {
    failure_ = summary.what;
    if (checkpoints_ != nullptr) checkpoints_->drop_from(summary.clock);
  }
  observer_.on_not_finite(summary);
}

// What the updates have not shown: a save has looked at every byte.
void Coordinator::look_at_discarded_save() {
  const std::optional<CheckpointCoordinator::Discarded> save = checkpoints_->take_discarded();
  if (!save || not_finite_since_ || inquiry_) return;
  NotFiniteStep step{.step = save->clock.value};
  for (const NotFiniteTensor& t : save->tensors)
    step.findings.push_back(
        {NotFiniteFinding::Where::value, step.step, t.variable, t.slot, t.first_element, t.what});
  inquiry_ = Inquiry{std::move(step), 0};
  finish_inquiry();
}

}  // namespace varscope
