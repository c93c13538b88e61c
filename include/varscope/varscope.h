#pragma once

// All of varscope's public headers. What they do not include is internal: it may change with every version.

#include <varscope/checkpoint.h>
#include <varscope/config.h>
#include <varscope/data.h>
#include <varscope/error.h>
#include <varscope/graph.h>
#include <varscope/layers.h>
#include <varscope/model.h>
#include <varscope/program.h>
#include <varscope/saver.h>
#include <varscope/session.h>
#include <varscope/tensor.h>
#include <varscope/variables.h>
