#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace varscope {

// What the logits of one target say of its class: with softmax a logit for each class, with sigmoid one, of
// the second of two.
enum class ClassLogits : bool { softmax, sigmoid };

// As accuracy counts: the first largest logit; of a single one, whether it is above 0.
std::size_t class_of(ClassLogits kind, std::span<const double> logits);
// Of all classes, two with sigmoid. In double.
std::vector<double> class_probabilities(ClassLogits kind, std::span<const double> logits);

}  // namespace varscope
