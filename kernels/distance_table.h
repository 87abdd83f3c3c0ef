/* SPDX-License-Identifier: Apache-2.0 */
/* distance_table.h - the members of a kn_distance that distance_body.h has written. */
/* clang-format off */
    .lanes_f32 = LANES_F32, .lanes_f64 = LANES_F64,
    .few_dot_f32 = few_dot_f32, .few_l2sq_f32 = few_l2sq_f32, .few_dot_f64 = few_dot_f64, .few_l2sq_f64 = few_l2sq_f64,
    .few_mean_log_f32 = few_mean_log_f32,
    .panel_dot_f32 = panel_dot_f32, .panel_l2sq_f32 = panel_l2sq_f32, .panel_dot_f64 = panel_dot_f64,
    .panel_l2sq_f64 = panel_l2sq_f64,
    .dot_squares_f32 = dot_squares_f32, .dot_squares_f64 = dot_squares_f64,
    .squares_f32 = squares_f32, .squares_f64 = squares_f64,
    .select_panel = select_panel, .select_rows = select_rows, .log_rows = log_rows, .entropy = entropy,
