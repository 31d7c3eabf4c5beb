#!/usr/bin/env bash
# Runs every fuzz target of the module for a time: fuzz.sh TIME [go test flag...].
#
# Go before 1.27 sometimes ends a target that found nothing with "context
# deadline exceeded" (https://go.dev/issue/75804): the time was up while a
# worker was busy. That alone is not a failure here; whatever else is, is.
set -euo pipefail

time=$1
shift

targets=$(go test "$@" -list '^Fuzz' ./... | awk '
  /^Fuzz/ { names[n++] = $1 }
  /^ok/   { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }')
if [[ -z $targets ]]; then
  echo 'fuzz: no target found' >&2
  exit 1
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT

while read -r package name; do
  echo "$package $name"
  if go test "$@" -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$package" </dev/null 2>&1 | tee "$output"; then
    continue
  fi
  why=$(awk '/^--- FAIL/ { failed = 1; next } /^FAIL/ { exit } failed' "$output")
  if [[ $why != '    context deadline exceeded' ]]; then
    echo "fuzz: $name failed" >&2
    exit 1
  fi
  echo "fuzz: $name found nothing: the time was up while a worker was busy (https://go.dev/issue/75804)"
done <<<"$targets"
