#pragma once

// Variables and the scopes they live in, with the semantics of TensorFlow's: VariableStore makes, finds and
// shares them; a scope hands initializers, regularizers, constraints, partitioners and getters down; Template
// makes functions whose calls share variables. docs/variable_scopes.md is the guide.

#include "common/variables/constraint.h"
#include "common/variables/initializer.h"
#include "common/variables/partitioner.h"
#include "common/variables/regularizer.h"
#include "common/variables/template.h"
#include "common/variables/variable_scope.h"
