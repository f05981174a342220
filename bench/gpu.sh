#!/usr/bin/env bash
# Everything that needs a real GPU, in one command of at most ten minutes and without a network:
#
#     bash bench/gpu.sh [--dry-run] [--small] OUTDIR
#
#   facts      the GPU, the versions, and every kernel compiled for it     OUTDIR/env.json
#   suite      the test suite on CuPy
#   gpu        determinism, streams, graphs, hidden synchronisation
#   memcheck, racecheck, synccheck, initcheck      compute-sanitizer on the small tests
#   compile-B  what torch compiles, into its cache on disk
#   bench      against torch, and against the copy bandwidth               OUTDIR/gpu.json, OUTDIR/gpu.md
#
# A step that fails does not stop the next.  OUTDIR/summary.txt has the status of each, OUTDIR/log.txt what
# they printed; the exit status is 0 if none failed.  With KETCORE_REQUIRE=sanitizer a missing
# compute-sanitizer is a failure.  --dry-run prints the steps, and runs and writes nothing.  --small runs every
# step on a few small cases, to try the script, also where stand-ins take the place of a GPU (docs/kernels.md):
# what it times is in OUTDIR/small.json and OUTDIR/small.md, and is no result.
#
# PYTHON is the interpreter (python3).  Packages that it lacks are installed from wheels in the folder WHEELS
# (wheels/ in the checkout, or beside it) into a temporary folder; bench/README.md says how to make it.

set -u
dry= small=
while :; do
  case ${1-} in
    --dry-run) dry=1 ;;
    --small) small=--small ;;
    *) break ;;
  esac
  shift
done
if [ $# -ne 1 ] || [ -z "$1" ]; then
  echo "usage: bash bench/gpu.sh [--dry-run] [--small] OUTDIR" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $1 in /*) out=$1 ;; *) out=$PWD/$1 ;; esac
if [ -n "$small" ] && [[ $(realpath -m "$out")/ = "$(realpath "$root")"/bench/results/* ]]; then
  echo "OUTDIR must not be where results are, got $out" >&2
  exit 2
fi
python=${PYTHON:-python3}
# All must end within ten minutes: the benchmark takes what the steps before it leave.
total=570
not_run=77 no_gpu=78

cd "$root" || exit 2
if [ -z "$dry" ]; then
  mkdir -p "$out" || exit 2
  work=$(mktemp -d) || exit 2
  trap finish EXIT
  trap 'exit 143' TERM INT
else
  work=WORK
fi
export PYTHONPATH="$root:$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
names=()

# What is left to do however the script ends: the logs in one file, and no temporary files.
finish() {
  # Steps that still run, after a signal: timeout passes it on.
  cat "$work"/*.pid 2>/dev/null | xargs -r kill 2>/dev/null
  for name in "${names[@]}"; do
    [ -f "$work/$name.log" ] && printf '==== %s ====\n' "$name" && cat "$work/$name.log"
  done >"$out/log.txt"
  rm -rf "$work"
}

# step NAME SECONDS COMMAND...: run it, and write down its exit status and time.
step() {
  local name=$1 limit=$2 start=$SECONDS status
  shift 2
  if [ -n "$dry" ]; then
    printf '%s (at most %s s): %s\n' "$name" "$limit" "$*"
    return
  fi
  timeout -k 5 "$limit" "$@" >"$work/$name.log" 2>&1 &
  echo $! >"$work/$name.pid"
  wait $!
  status=$?
  rm -f "$work/$name.pid"
  echo "$status $((SECONDS - start)) $limit" >"$work/$name.status"
  echo "$name: exit status $status after $((SECONDS - start)) s"
}

# The steps in the order of the summary: a step in the background cannot add itself.
planned() { names+=("$@"); }

missing() {
  "$python" - "$@" <<'END'
import sys
from importlib.util import find_spec
print(*(name for name in sys.argv[1:] if find_spec(name) is None))
END
}

# Install what is missing from the folder of wheels; what is missing after that is said, and made a failure.
wheels() {
  local needed="numpy scipy array_api_compat threadpoolctl pytest hypothesis ml_dtypes tqdm matplotlib cupy"
  local useful="torch triton array_api_strict xdist" folder lacking
  for folder in "${WHEELS:-}" "$root/wheels" "$root/../wheels"; do
    [ -n "$folder" ] && [ -d "$folder" ] && break
  done
  for name in $(missing $needed array_api_strict); do
    "$python" -m pip install -q --no-index --no-deps --no-compile --find-links "$folder" \
      --target "$work/site" "${name//_/-}" 2>&1 | tail -1
  done
  echo "optional, and missing: $(missing $useful)"
  lacking=$(missing $needed)
  if [ -n "$lacking" ]; then
    echo "needed, and missing: $lacking; put their wheels into a folder wheels/, see bench/README.md"
    return 1
  fi
}

find_sanitizer() {
  local found
  found=$(command -v compute-sanitizer || ls -d /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -1)
  if [ -z "$found" ]; then
    found=$("$python" - 2>/dev/null <<'END'
from importlib.util import find_spec
from pathlib import Path
for place in find_spec("nvidia").submodule_search_locations:
    for path in sorted(Path(place).glob("**/bin/compute-sanitizer")):
        print(path)
END
    )
    found=${found##*$'\n'}
  fi
  # Wheels leave it without the right to be executed.
  if [ -x "$found" ]; then
    echo "$found"
  fi
}

# One tool of compute-sanitizer on the small tests.  They turn CuPy's memory pool off, so that every array ends
# where its allocation ends; initcheck must see all kernels, or it would not know what they wrote.
sanitize() {
  local tool=$1 limit=$2 options=(--error-exitcode 86 --report-api-errors no --target-processes application-only)
  if [ "$tool" = racecheck ] || [ "$tool" = synccheck ]; then
    for kernel in expand contract accumulate reduce pieces segments multiply; do
      options+=(--kernel-name "kernel_substring=$kernel")
    done
  fi
  if [ -z "$sanitizer" ] && [ -z "$dry" ]; then
    echo "compute-sanitizer was not found" >"$work/$tool.log"
    echo "$not_run 0 $limit" >"$work/$tool.status"
    return
  fi
  step "$tool" "$limit" "${sanitizer:-compute-sanitizer}" --tool "$tool" "${options[@]}" \
    "$python" -m pytest "${pytest[@]}" -x -k "$watched" tests/test_gpu.py
}

# The status of a step in words; 1 if that is a failure.
judge() {
  local name=$1 status seconds limit words failure=0
  if ! read -r status seconds limit 2>/dev/null <"$work/$name.status"; then
    status=$not_run seconds=0
    echo "not started" >"$work/$name.log"
  fi
  case $status in
    0) words=ok ;;
    "$not_run") words="not run: $(tail -1 "$work/$name.log")" ;;
    124 | 137) words="failed: more than $limit s" failure=1 ;;
    *) words="failed: exit status $status" failure=1 ;;
  esac
  # On some virtual machines the tool starts and finds that it cannot watch the device.
  if [ $failure = 1 ] && grep -qs "Device not supported" "$work/$name.log"; then
    words="not run: compute-sanitizer does not support this device" status=$not_run failure=0
  fi
  case $name,$status,${KETCORE_REQUIRE:-} in
    *check,"$not_run",*sanitizer*) failure=1 ;;
  esac
  printf '%-16s %4s s  %s\n' "$name" "$seconds" "$words"
  return $failure
}

summarise() {
  local failed=0
  for name in "${names[@]}"; do
    judge "$name" || failed=1
  done >"$out/summary.txt"
  [ -f "$out/$results.md" ] && cat "$out/$results.md"
  for name in "${names[@]}"; do
    grep -qs "^$name .* failed" "$out/summary.txt" && printf '==== %s ====\n' "$name" && tail -15 "$work/$name.log"
  done
  cat "$out/summary.txt"
  exit $failed
}

# ---- the steps ----

export KETCORE_REQUIRE="cupy${KETCORE_REQUIRE:+,$KETCORE_REQUIRE}"
# Three processes compile at a time, beside the tests.
export TORCHINDUCTOR_COMPILE_THREADS=4
# Plugins that happen to be installed, and warnings of other versions of libraries, are not what is tested.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
pytest=(-m gpu -W default -p no:cacheprovider -q)
suite=(tests --ignore=tests/test_gpu.py) gpu=(tests/test_gpu.py) watched=small processes=6
batches=(1024 16384 131072) results=gpu
if [ -n "$small" ]; then
  suite=(tests/test_ops.py -k "cupy-rows and dense_definition") gpu=(-k "bad_ids and rows" tests/test_gpu.py)
  watched="small_products and float32" processes=1
  batches=(16) results=small
  export HYPOTHESIS_PROFILE=short
fi
planned wheels facts

if [ -n "$dry" ]; then
  echo "wheels (at most 60 s): pip install what is missing, from ${WHEELS:-wheels/}"
else
  start=$SECONDS
  wheels >"$work/wheels.log" 2>&1
  echo "$? $((SECONDS - start)) 60" >"$work/wheels.status"
fi
step facts 90 "$python" -m bench.gpu facts "$out" $small
if [ -z "$dry" ] && { grep -q "^1 " "$work/wheels.status" || grep -q "^$no_gpu " "$work/facts.status"; }; then
  summarise
fi

# Tests, sanitizers and torch's compiler at the same time: the processor is what they all wait for.
workers=()
if [ -z "$(missing xdist)" ]; then
  workers=(-p xdist.plugin -n $processes)
fi
sanitizer=$(find_sanitizer)
planned suite gpu memcheck racecheck synccheck initcheck "${batches[@]/#/compile-}"
parallel=300
step suite $parallel "$python" -m pytest "${pytest[@]}" "${workers[@]}" "${suite[@]}" &
step gpu $parallel "$python" -m pytest "${pytest[@]}" "${gpu[@]}" &
for tool in memcheck racecheck synccheck initcheck; do
  sanitize $tool $parallel &
done
for batch in "${batches[@]}"; do
  step compile-$batch $parallel "$python" -m bench.gpu compile "$out" --batch $batch $small &
done
wait

# The benchmark alone.  It stops by itself, and writes its results after every case.
planned bench
limit=$((total - SECONDS))
step bench $limit "$python" -m bench.gpu bench "$out" --seconds $((limit - 30)) $small
if [ -z "$dry" ]; then
  summarise
fi
