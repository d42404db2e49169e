#!/usr/bin/env bash
# Tests against an extension compiled with AddressSanitizer and UndefinedBehaviorSanitizer, one instruction set after
# the other, and then the fuzzer. Arguments: a folder for the build, kept between runs; instruction sets, or none for
# all that are tested; environment: TESTS (default: tests/ops tests/gates), FUZZ_CALLS (default: 20000).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mkdir -p "${1:?names no folder for the build}" && cd "$1" && pwd)
shift
isas=("$@")
[ ${#isas[@]} -gt 0 ] || isas=(generic avx2 avx512)
python=${PYTHON:-python}

cmake -S . -B "$folder/build" -G Ninja -DGLAI_CUDA=OFF -DGLAI_SANITIZER=address,undefined \
  -DSKBUILD_PROJECT_VERSION=0 -DSKBUILD_PROJECT_VERSION_FULL=0 \
  -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >"$folder/cmake.log"
cmake --build "$folder/build"
rm -rf "$folder/python"
cp -r python "$folder/python"
cp "$folder"/build/_native*.so "$folder/python/glai_native/"

# Python itself is not instrumented: the sanitizers' libraries come first, and leaks are its own.
sanitized() {
  LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    PYTHONPATH="$folder/python:$PWD/bench:$PWD/tests" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$@"
}
for isa in "${isas[@]}"; do
  printf '\n=== %s (%ss)\n' "$isa" "$SECONDS"
  # Of the tests that go through all sets, those of this one.
  # shellcheck disable=SC2086
  GLAI_CPU_ISA=$isa sanitized "$python" -m pytest -q -p no:cacheprovider ${TESTS:-tests/ops tests/gates} \
    -k "$isa or not (generic or avx2 or avx512)"
done
printf '\n=== fuzz (%ss)\n' "$SECONDS"
cd tests
sanitized "$python" -m fuzz --calls "${FUZZ_CALLS:-20000}"
