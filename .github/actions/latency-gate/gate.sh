#!/usr/bin/env bash
# The latency gate. Everything comes by the environment, each value as one argument: none is read as code, or split.
set -euo pipefail

arguments=()

# Add a flag with its value, where there is one.
flag() {
  if [[ -n "$2" ]]; then
    arguments+=("$1=$2")
  fi
}

# Add every line of a text as one argument.
lines() {
  local line
  while IFS= read -r line; do
    line="${line%$'\r'}"
    if [[ -n "$line" ]]; then
      arguments+=("$line")
    fi
  done <<< "$1"
}

flag --baseline "${GATE_BASELINE:?no baseline was given}"
flag --max-regression "${GATE_MAX_REGRESSION:-}"
flag --inconclusive "${GATE_INCONCLUSIVE:-}"
flag --pairs "${GATE_PAIRS:-}"
flag --threads "${GATE_THREADS:-}"
flag --max-macs-increase "${GATE_MAX_MACS_INCREASE:-}"
flag --max-parameters-increase "${GATE_MAX_PARAMETERS_INCREASE:-}"
flag --max-size-increase "${GATE_MAX_SIZE_INCREASE:-}"
flag --max-reorders-increase "${GATE_MAX_REORDERS_INCREASE:-}"
flag --max-qdq-increase "${GATE_MAX_QDQ_INCREASE:-}"
flag --output "${GATE_OUTPUT:-latency-gate.json}"
lines "${GATE_ARGUMENTS:-}"
arguments+=(--format=github --)
before=${#arguments[@]}
lines "${GATE_MODELS:-}"
if (( ${#arguments[@]} == before )); then
  echo "::error title=latency gate::no models were given"
  exit 2
fi

code=0
"${GATE_COMMAND:-mggc-edge}" bench "${arguments[@]}" || code=$?

case "$code" in
  0) # it passed, or is inconclusive and let pass
    verdict=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["gate"]["verdict"])' \
      "${GATE_OUTPUT:-latency-gate.json}")
    ;;
  3) verdict=fail ;;
  4) verdict=inconclusive ;;
  *) verdict=error ;;
esac
case "$verdict" in
  pass | fail | inconclusive | error) ;;
  *) verdict=none ;; # nothing was judged
esac
{
  echo "verdict=$verdict"
  echo "exit-code=$code"
} >> "${GITHUB_OUTPUT:-/dev/null}"
exit "$code"
