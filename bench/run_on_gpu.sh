#!/usr/bin/env bash
# All that a GPU has to say about this checkout, on a machine that has one: nothing is downloaded.
#
#   bench/run_on_gpu.sh FOLDER [STAGE ...]     stages: build tests memcheck racecheck bench step ncu (default: all)
#
# Logs and figures go to FOLDER. A stage that fails, or runs past its time, does not keep the later ones from
# running; the summary at the end says how each went, and the exit status is 1 if one failed. PYTHON names the
# interpreter (default: python3), which has torch, the package's dependencies, scikit-build-core, pybind11 and pytest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

stages=(build tests memcheck racecheck bench step ncu)
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0"
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- "${stages[@]}"
for stage in "$@"; do
  case " ${stages[*]} " in
    *" $stage "*) ;;
    *) echo "run_on_gpu.sh: no stage '$stage', only: ${stages[*]}" >&2; exit 2 ;;
  esac
done

python=${PYTHON:-python3}
# cmake and ninja may lie beside the interpreter without being on the path.
PATH=$(dirname "$(command -v "$python")"):$PATH
# The card's own architecture: one is enough here, and a build of all takes minutes.
if [ -z "${GLAI_CUDA_ARCHITECTURES:-}" ]; then
  GLAI_CUDA_ARCHITECTURES=$("$python" -c '
import torch
major, minor = torch.cuda.get_device_capability()
variant = "a" if major in (9, 10) else ""
print(f"{major}{minor}{variant}-real")' 2>"$out/architecture.log") || GLAI_CUDA_ARCHITECTURES=90a-real
fi
export GLAI_CUDA_ARCHITECTURES

# What each stage may take, in seconds.
declare -A limit=([build]=300 [tests]=500 [memcheck]=300 [racecheck]=300 [bench]=300 [step]=120 [ncu]=240)

run_build() {
  GLAI_CUDA=ON "$python" -m pip install --no-build-isolation --no-deps . &&
    "$python" -c 'import glai_native; print(glai_native.build_info())'
}

run_tests() {
  # Without --strict-config: the option of a plugin that may be missing here is then only warned of.
  "$python" -m pytest -o addopts="-ra --import-mode=importlib" -m gpu tests/simt \
    tests/solvers/sgd/test_sgd_cuda.py tests/bench/test_cuda_steps.py --junitxml="$out/tests.xml"
}

# Each tensor in memory of its own: in torch's pools a row too many reads a neighbour, which is no error.
# Sizes off the tiles' by one, and sizes far under a tile; then the reference form as it looks whether it is
# safe, which no call of that size chooses.
sanitize() {
  local command
  for command in "-m glai_bench.launch_kernels --shape 529,33,65,17 129,33,65,17 5,3,2,1" \
    "-m pytest -o addopts=--import-mode=importlib -q -m gpu tests/simt/test_gated_matmul_forms.py -k test_reference_that"; do
    # shellcheck disable=SC2086
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --error-exitcode 9 --tool "$@" \
      "$python" $command || return
  done
}
# Calls of the driver that torch tries and that may fail are not what is looked for.
run_memcheck() { sanitize memcheck --report-api-errors no; }
run_racecheck() { sanitize racecheck; }

run_bench() {
  "$python" -m glai_bench --device cuda --quick --forms --output "$out/bench.json"
}

run_step() {
  "$python" -m glai_bench.steps --device cuda --quick --output "$out/sgd.json"
}

run_ncu() {
  # The clocks are left as they are: the machine may be shared, and the benchmark ran at them too.
  ncu --clock-control none --set detailed --kernel-name 'regex:^(gated?_|pack_gates|unpack_gates|path_|selector_|sum_|majority|compare_norms|reference_)' \
    --force-overwrite --export "$out/kernels" \
    "$python" -m glai_bench.launch_kernels --shape 4096,193,50,10 4096,64,512,128 --precisions bf16 tf32 &&
    ncu --import "$out/kernels.ncu-rep" --page details >"$out/kernels.txt"
}

needs() {
  case $1 in
    memcheck | racecheck) echo compute-sanitizer ;;
    ncu) echo ncu ;;
    *) echo "$python" ;;
  esac
}

summary=()
failed=0
for stage in "$@"; do
  log=$out/$stage.log
  tool=$(needs "$stage")
  if ! command -v "$tool" >/dev/null; then
    summary+=("$(printf '%-10s skipped: no %s here' "$stage" "$tool")")
    continue
  fi
  echo "=== $stage (at most ${limit[$stage]} s), log: $log"
  began=$SECONDS
  # A shell of its own, so that the time counts for all that the stage starts.
  export -f "run_$stage" sanitize
  export out python
  timeout --kill-after=10 "${limit[$stage]}" bash -c "run_$stage" >"$log" 2>&1
  status=$?
  case $status in
    0) verdict=passed ;;
    124 | 137) verdict="over its ${limit[$stage]} s" ;;
    *) verdict="FAILED (status $status)" ;;
  esac
  [ $status -eq 0 ] || failed=1
  summary+=("$(printf '%-10s %s, %d s: %s' "$stage" "$verdict" $((SECONDS - began)) "$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-140)")")
done

printf '\n'
printf '%s\n' "${summary[@]}" | tee "$out/summary.txt"
exit $failed
