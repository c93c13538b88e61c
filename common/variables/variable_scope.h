#pragma once

// Variable scopes with the semantics of TensorFlow's variable_scope and get_variable (graph mode). A
// VariableStore holds the variables of one model; scopes are opened as RAII guards and give names, reuse and
// inherited defaults:
//
//   VariableStore store;
//   auto layer1 = store.scope("layer1", {.initializer = Initializer::constant(0)});
//   Variable& w = store.get_variable("weights", {784, 256});   // "layer1/weights"
//
// Examples of everything, and where it differs from TensorFlow: docs/variable_scopes.md.

#include "common/variables/template.h"
#include "common/variables/variable_store.h"
