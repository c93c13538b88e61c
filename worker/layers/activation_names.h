#pragma once

#include "common/config/binder.h"
#include "worker/kernels/kernels.h"

namespace varscope {

inline constexpr Choice<Activation> kActivationNames[] = {
    {Activation::linear, "linear"},     {Activation::relu, "relu"}, {Activation::leaky_relu, "leaky_relu"},
    {Activation::sigmoid, "sigmoid"},   {Activation::tanh, "tanh"}, {Activation::gelu, "gelu"},
    {Activation::softplus, "softplus"}, {Activation::elu, "elu"},   {Activation::selu, "selu"},
    {Activation::swish, "swish"}};

}  // namespace varscope
