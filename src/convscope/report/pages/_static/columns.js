"use strict";
// What the columns of saved tables are called: a name of its own for each, with its unit in parentheses.
// A column that isn't named here keeps its field's name; null leaves one out, with all that lies in it.
const columnsOf = (function () {
  const shares = (name) => ({
    [`${name}.median`]: `${name}, median (share)`,
    [`${name}.low`]: `${name}, first quartile (share)`,
    [`${name}.high`]: `${name}, third quartile (share)`,
  });

  const interval = (name, unit) => ({
    [`${name}.mean`]: `${name}, mean over seeds (${unit})`,
    [`${name}.low`]: `${name}, low end of 95 % (${unit})`,
    [`${name}.high`]: `${name}, high end of 95 % (${unit})`,
    [`${name}.least`]: `${name}, smallest seed (${unit})`,
    [`${name}.most`]: `${name}, largest seed (${unit})`,
    [`${name}.num_seeds`]: `${name}, runs (seeds)`,
  });

  const shape = { output_shape: "output_shape (elements)" };
  const window_ = {
    "receptive_field.size": "receptive_field_size (pixels)",
    "receptive_field.stride": "receptive_field_stride (pixels)",
    "receptive_field.offset": "receptive_field_offset (pixels)",
    receptive_field: "receptive_field_size (pixels)",
  };
  const cost = {
    ...shape, ...window_,
    activations: "activations (elements)", activation_bytes: "activations (bytes)", params: "params (elements)",
    parameter_bytes: "params (bytes)", macs: "macs (MACs)", forward_flops: "forward (FLOPs)",
    backward_input_flops: "backward_input (FLOPs)", backward_weight_flops: "backward_weight (FLOPs)",
    recompute_flops: "recompute (FLOPs)", elementwise_ops: "elementwise (operations)",
    saved_bytes: "saved (bytes)", index_bytes: "saved_indices (bytes)", calls: "calls (runs)",
  };
  const timeline = {
    call: "operator (number)", allocated_bytes: "allocated (bytes)",
    activations: "rule_of_thumb_activations (elements)",
    values_per_activation: "rule_of_thumb_values_per_activation (values)",
    activation_bytes: "rule_of_thumb_activations (bytes)",
    values_per_parameter: "rule_of_thumb_values_per_parameter (values)",
    parameter_bytes: "rule_of_thumb_params (bytes)",
  };
  const epochs = {
    epoch: "epoch (number)", step: "step (optimizer steps)", train_loss: "train_loss (nats)",
    train_accuracy: "train_accuracy (share)", validation_loss: "validation_loss (nats)",
    validation_accuracy: "validation_accuracy (share)", validation_top5: "validation_top5 (share)",
    learning_rate: "learning_rate (1)", images_per_second: "speed (images/s)", seconds: "time (s)",
    average_loss: "average_weights_loss (nats)", average_accuracy: "average_weights_accuracy (share)",
    skipped_steps: "skipped (optimizer steps)",
  };
  const percentiles = {
    path: "layer", channel: "channel (number)", of: "side", steps: "step (optimizer steps)",
    low: "percentile_15 (channel’s unit)", median: "percentile_50 (channel’s unit)",
    high: "percentile_85 (channel’s unit)",
  };
  const norms = {
    channels: "channels (number)", num_values: "values_per_channel (values)",
    effective_values: "worth_per_channel (values)", momentum: "momentum (1)", eps: "eps (squared input’s unit)",
    num_batches_tracked: "tracked (batches)", mean_residual: "worst_mean_off_by (σ)",
    mean_error: "worst_mean_standard_error (σ)", variance_residual: "worst_variance_off_by (ln)",
    variance_error: "worst_variance_standard_error (ln)", stale_channels: "stale (channels)",
    dead_channels: "dead (channels)", "gamma_range.0": "smallest_gamma (1)", "gamma_range.1": "median_gamma (1)",
    "gamma_range.2": "largest_gamma (1)", gamma_range: null, single: null,
  };
  const channels = {
    ...Object.fromEntries([...Object.keys(norms), "path", "frozen"].map((name) => [name, null])),
    "single.number": "channel (number)", "single.mean": "measured_mean (input’s unit)",
    "single.running_mean": "running_mean (input’s unit)",
    "single.mean_error": "mean_difference_standard_error (input’s unit)",
    "single.variance": "measured_variance (squared input’s unit)",
    "single.running_variance": "running_variance (squared input’s unit)",
    "single.variance_error": "variance_ratio_standard_error (ln)", "single.gamma": "gamma (1)",
    "single.beta": "beta (output’s unit)", "single.dead": "dead",
  };
  const filters = {
    index: "channel (number)", weight_rms: "weight_rms (1)", dominance: "strength_over_median (ratio)",
    aliased_share: "aliased (share)", maximum: "largest_activation (1)", strength: "strength (1)",
    activated_share: "aliased_behind_activation (share)", filter_share: "aliased_white_input (share)",
    peak_frequency: "peak_frequency (cycles/pixel)", bandwidth: "bandwidth (octaves)",
    luminance: "energy_by_radius_grey (shares)", opponent: "energy_by_radius_colours (shares)",
  };
  const operators = {
    kernel: "kernel (pixels)", stride: "stride (pixels)", num_images: "images (number)",
    ...shares("share"), ...shares("activated"), ...shares("unactivated"), ...shares("blurred"),
    ...shares("filter_share"),
    share: "share, median (share)", activated: null, unactivated: null, blurred: null, filter_share: null,
  };
  const runs = {
    "runs.seed": "seed (number)", "runs.folder": "run_folder", "runs.state": "run_state",
    "runs.steps": "run (optimizer steps)", "runs.final_error": "run_final_error (share)",
    "runs.best_error": "run_best_error (share)", "runs.final_loss": "run_final_loss (nats)",
    "runs.train_loss": "run_train_loss (nats)", "runs.train_error": "run_train_error (share)",
    "runs.gap": "run_gap (share)", "runs.steps_to_target": "run_to_target (optimizer steps)",
    "runs.diverged.step": "run_diverged_at (optimizer steps)",
    "runs.diverged.epoch": "run_diverged_in_epoch (number)",
    "runs.diverged.learning_rate": "run_diverged_at_learning_rate (1)", "runs.diverged.loss": "run_diverged_loss (nats)",
    "runs.diverged": null, "runs.measures": null, "runs.failure": "run_failure", "runs.seconds": "run_time (s)",
  };
  const arms = {
    name: "arm", options: null, config: null, start: null, percentiles: null, ...runs, runs: null,
    ...interval("final_error", "share"), ...interval("best_error", "share"), ...interval("train_error", "share"),
    ...interval("gap", "share"), final_error: null, best_error: null, train_error: null, gap: null,
    "reached.num_reached": "reached_target (runs)", "reached.num_runs": "ended (runs)",
    "reached.median": "to_target, median (optimizer steps)", "reached.least": "to_target, quickest (optimizer steps)",
    num_diverged: "diverged (runs)", num_failed: "failed (runs)",
  };
  const inUnit = "in the unit of its row";
  const differences = {
    ...Object.fromEntries(Object.entries(interval("interval", inUnit)).map(([key, name]) => [key, name.replace("interval, ", "")])),
    interval: null, p: "p (1)",
  };
  const curves = {
    value: "target_error (share)", "points.step": "step (optimizer steps)", "points.epoch": "epoch (number)",
    "points.mean": `mean over seeds (${inUnit})`, "points.low": `low end of 95 % (${inUnit})`,
    "points.high": `high end of 95 % (${inUnit})`, "points.least": `smallest seed (${inUnit})`,
    "points.most": `largest seed (${inUnit})`, "points.num_seeds": "runs (seeds)",
  };
  const both = (name, told) => ({ [`first_${name}`]: `first_${told}`, [`second_${name}`]: `second_${told}` });
  const layers = {
    ...both("shape", "output_shape (elements)"), ...both("macs", "macs (MACs)"), ...both("params", "params (elements)"),
    ...both("saved_bytes", "saved (bytes)"),
  };
  const numbers = { name: "quantity", form: null, first: `first (${inUnit})`, second: `second (${inUnit})`, ratio: "second_over_first (ratio)" };
  const octaves = {
    low: "frequency_from (cycles/pixel)", high: "frequency_to (cycles/pixel)", share: "energy_of_filters (share)",
    reference: "energy_of_even_coverage (share)", random: "energy_of_random_weights (share)",
  };
  const shifts = {
    stride: "stride (pixels)", map_size: "map_size (positions)", distance: "off_after_shift_by_1_pixel (ratio)",
    change: "without_moving_the_map (ratio)",
  };
  const attribution = (unit) => ({
    path: "layer", difference: `of_the_gap (${unit})`, error: `standard_error (${unit})`, doubt: `bound_of_chance (${unit})`,
  });
  const ledger = { max_error: "largest_difference (relative to largest output)", magnification: "largest_scale (ratio)" };
  const sweep = { x: "at (in the unit of varied)", y: `value (${inUnit})`, line: "quantity", peak: "peak_phase" };

  // Rows whose numbers have different units say theirs in a column.
  const ofQuantity = { training_loss: "nats", validation_loss: "nats", steps_to_target: "optimizer steps" };
  const ofForm = { bytes: "bytes", percent: "share", exact: "number", ratio: "ratio" };
  const withUnit = (row) =>
    "quantity" in row ? { ...row, unit: row.scale === "ratio" ? "ratio" : ofQuantity[row.quantity] ?? "share" } : row;
  const asListed = (row) => ({ ...row, unit: row.unit || ofForm[row.form] || "1" });
  const withGammas = (row) => ({ ...row, ...Object.fromEntries((row.gamma_range ?? []).map((value, at) => [`gamma_range.${at}`, value])) });

  const tables = [
    [/(^|\.)(cost|published)\.rows$/, cost], [/forecast\.timeline$|rule_of_thumb$/, timeline],
    [/\.epochs$/, epochs], [/percentiles$/, percentiles], [/checkup\.layers$/, norms, withGammas],
    [/ledger\.entries$/, ledger], [/filters$/, filters], [/octaves$/, octaves],
    [/shifts\.layers$/, shifts], [/operators$/, operators], [/comparison\.arms$/, arms],
    [/comparison\.(differences)$/, differences, withUnit], [/comparison\.(curves|target)$/, curves, withUnit],
    [/pair\.differences$/, numbers, asListed], [/pair\.layers$/, layers], [/^\[/, sweep],
  ];

  // The names of the columns of the data that a path leads to, and what makes a row's.
  return function (path, isTakenApart, data) {
    if (/attribution$/.test(path)) return { names: attribution(data.checkup?.loss_unit === "nats" ? "nats" : "loss’s unit"), row: (given) => given };
    const [, names = {}, row = (given) => given] = tables.find(([where]) => where.test(path)) ?? [];
    return names === norms && isTakenApart ? { names: channels, row: (given) => given } : { names, row };
  };
})();
