#pragma once

// The model that a config describes, with the values of a checkpoint or its first ones: LoadedModel, to
// answer with in a program of one's own.

#include "launch/job/loaded_model.h"
#include "worker/layers/model.h"
