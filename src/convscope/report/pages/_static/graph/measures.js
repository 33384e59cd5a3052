// What the colours can show. "of" is what the whole network has.
const MEASURES = [
  { key: "macs", label: "MACs", write: count, how: "multiply–accumulates of the forward pass, whole batch" },
  { key: "params", label: "Parameters", write: count, how: "elements of its parameters; shared ones count once" },
  { key: "saved_bytes", label: "Saved for backward", write: bytes, how: "bytes kept for backward that no earlier layer keeps" },
  { key: "seconds", label: "Time", write: seconds, how: "median seconds, forward and backward" },
];

const SEVERITIES = ["error", "warning", "advice", "info"];
