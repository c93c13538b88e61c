#pragma once

#include <cstdint>

#include "worker/kernels/kernels.h"

// The nonlinear part of one time step of recurrent cells, fused and vectorised as in kernels.h: an element's
// bits depend on its own operands only. Matrices are row-major [rows, units] and dense, but panels.
// Pointers of one call do not overlap.
namespace varscope::kernels {

// z [rows, 4 units] holds the products for the gates i, j, f, o and becomes i = sigmoid(z + bias),
// j = tanh(..), f = sigmoid(.. + forget_bias), o = sigmoid(..). Then c = f * c_before + i * j, h = o tanh(c).
void lstm_step(float* z, const float* bias, float forget_bias, const float* c_before, float* c,
               Panel<float> h, std::int64_t rows, std::int64_t units);
void lstm_step(double* z, const double* bias, double forget_bias, const double* c_before, double* c,
               Panel<double> h, std::int64_t rows, std::int64_t units);

// The way back: z holds the gates and becomes the gradient of what lstm_step found there. The gradient of h
// is dy + dh; dc comes in as the gradient that the next step leaves and goes out as that of c_before.
void lstm_step_gradient(float* z, const float* c_before, const float* c, Panel<const float> dy,
                        const float* dh, float* dc, std::int64_t rows, std::int64_t units);
void lstm_step_gradient(double* z, const double* c_before, const double* c, Panel<const double> dy,
                        const double* dh, double* dc, std::int64_t rows, std::int64_t units);

// z [rows, 2 units] becomes r, u = sigmoid(z + bias), and rh = r * h_before.
void gru_gates(float* z, const float* bias, Panel<const float> h_before, Panel<float> rh, std::int64_t rows,
               std::int64_t units);
void gru_gates(double* z, const double* bias, Panel<const double> h_before, Panel<double> rh,
               std::int64_t rows, std::int64_t units);
// z [rows, units] becomes the candidate tanh(z + bias), and h = u * h_before + (1 - u) * candidate.
void gru_output(float* z, const float* bias, const float* gates, Panel<const float> h_before, Panel<float> h,
                std::int64_t rows, std::int64_t units);
void gru_output(double* z, const double* bias, const double* gates, Panel<const double> h_before,
                Panel<double> h, std::int64_t rows, std::int64_t units);

// Back through gru_output: z becomes its own gradient, u in gates that of u's product, and dh (which comes in
// as what the next step leaves of the gradient of h) what this step alone leaves of that of h_before.
void gru_output_gradient(float* z, float* gates, Panel<const float> h_before, Panel<const float> dy,
                         float* dh, std::int64_t rows, std::int64_t units);
void gru_output_gradient(double* z, double* gates, Panel<const double> h_before, Panel<const double> dy,
                         double* dh, std::int64_t rows, std::int64_t units);
// Back through gru_gates from the gradient of r * h_before: r in gates becomes the gradient of its product,
// and dh is increased by drh * r.
void gru_gates_gradient(float* gates, Panel<const float> h_before, const float* drh, float* dh,
                        std::int64_t rows, std::int64_t units);
void gru_gates_gradient(double* gates, Panel<const double> h_before, const double* drh, double* dh,
                        std::int64_t rows, std::int64_t units);

// The cell whose reset comes after the product: `product` [rows, units] becomes product + bias, and z becomes
// z + r * product.
void gru_reset(float* z, float* product, const float* bias, const float* gates, std::int64_t rows,
               std::int64_t units);
void gru_reset(double* z, double* product, const double* bias, const double* gates, std::int64_t rows,
               std::int64_t units);
// Back through it from dz, the gradient of z: r in gates becomes the gradient of its own product, and
// `product` its gradient.
void gru_reset_gradient(float* gates, float* product, const float* dz, std::int64_t rows, std::int64_t units);
void gru_reset_gradient(double* gates, double* product, const double* dz, std::int64_t rows,
                        std::int64_t units);

}  // namespace varscope::kernels
