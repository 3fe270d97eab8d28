#!/usr/bin/env bash
# What a machine with a GPU has to say about lmanet, in at most eight minutes; see docs/gpu.md.
#
#   tools/gpu_check.sh OUT [--dry] [--wheels FOLDER] [--data camvid:PATH] [--only PART,PART] [--minutes N]
#
# Writes environment, op, model, segment, evaluate (with --data) and tests as JSON files and log.txt into OUT. Each part
# is a process with a time limit of its own. Exit code: 0 all parts ran; 1 they ran, and tests failed; 2 a part did not.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() {
  sed -n '4p' "$0" | sed 's/^# */usage: /' >&2
  exit 64
}

out='' dry='' wheels='' data='' only='' minutes=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry) dry=--dry ;;
    --wheels | --data | --only | --minutes)
      [ $# -ge 2 ] || usage
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage; out=$1 ;;
  esac
  shift
done
[ -n "$out" ] || usage
mkdir -p "$out" || exit 64
out=$(cd "$out" && pwd)
# A dry run is for finding mistakes, on whatever machine: its limits are for what hangs.
longer=1
[ -z "$dry" ] || longer=5
[ -n "$minutes" ] || { [ -n "$dry" ] && minutes=30 || minutes=7.8; }
deadline=$(awk "BEGIN { print int(60 * $minutes) }")

python=${PYTHON:-}
[ -n "$python" ] || { python=$root/.venv/bin/python; [ -x "$python" ] || python=python3; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$out/log.txt
: >"$log"
say() { echo "[${SECONDS}s] $*" | tee -a "$log"; }

# Packages that this machine lacks. `--target` does not touch its own.
mkdir -p "$work/site"
if [ -n "$wheels" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
    --target "$work/site" "$wheels"/*.whl >>"$log" 2>&1 || say "the wheels of $wheels cannot be installed: see log.txt"
fi

# lmanet asks for its own version, which an installation would know.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/pyproject.toml" | head -1)
mkdir -p "$work/site/lmanet-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: lmanet\nVersion: %s\n' "$version" >"$work/site/lmanet-$version.dist-info/METADATA"

paths() { export PYTHONPATH=$root/tools:$1:$work/site${given_path:+:$given_path}; }
given_path=${PYTHONPATH:-}
paths "$root/src"
loads() { "$python" -c 'import torch, lmanet.ops._native' >>"$log" 2>&1; }

build_kernel() {
  local config
  config=$("$python" -m nanobind --cmake_dir) || return
  cmake -S "$root" -B "$work/kernel" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dnanobind_DIR="$config" || return
  timeout 75 cmake --build "$work/kernel" -j "$(nproc)"
}

kernel='the checkout'
if ! loads; then
  kernel='nowhere: no compiler, or the build failed or took too long'
  built=''
  [ -z "$wheels" ] || built=$(find "$wheels" -maxdepth 1 -name '_native*.so' | head -1)
  [ -z "$built" ] || kernel="the wheels' folder"
  if [ -z "$built" ] && [ -z "$dry" ] && build_kernel >>"$log" 2>&1; then
    built=$(find "$work/kernel" -maxdepth 1 -name '_native*.so' | head -1)
    kernel='a build on this machine'
  fi
  [ -z "$built" ] && [ -n "$dry" ] && kernel='nowhere: a dry run does not build it'
  # The checkout stays as it is: with a kernel from elsewhere, a copy of the sources is run.
  if [ -n "$built" ] && cp -r "$root/src" "$work/src" && cp "$built" "$work/src/lmanet/ops/"; then
    paths "$work/src"
    loads || kernel="nowhere: that of ${kernel#the } cannot be loaded: see log.txt"
  fi
fi
say "the CPU kernel comes from $kernel"
export GPU_CHECK_KERNEL=$kernel PYTHONUNBUFFERED=1
GPU_CHECK_COMMIT=${GPU_CHECK_COMMIT:-$(git -C "$root" rev-parse HEAD 2>/dev/null)}
export GPU_CHECK_COMMIT TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton

if [ -z "$dry" ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >>"$log" 2>&1; then
  say "PyTorch of $python sees no GPU here: --dry runs everything on the CPU"
  exit 2
fi

# part NAME MODULE SECONDS [ARGUMENT...]: within its own limit and the whole's.
parts=()
part() {
  local name=$1 module=$2 limit=$(($3 * longer)) left=$((deadline - SECONDS - 12))
  shift 3
  case ,${only:-$name}, in *",$name,"*) ;; *) return ;; esac
  parts+=("$name")
  rm -f "$out/$name.json"
  [ "$limit" -le "$left" ] || limit=$left
  if [ "$limit" -lt 10 ]; then
    say "$name: no time left"
    return
  fi
  say "$name, at most $limit s"
  timeout -k 5 "$((limit + 5))" "$python" -m "gpu_check.$module" --out "$out" --work "$work" --limit "$limit" $dry "$@" \
    >>"$log" 2>&1 || say "$name ended with code $?: see log.txt"
}

part environment environment 40
part op op 60
part model model 85
part segment segment 90
[ -z "$data" ] || part evaluate evaluate 60 --data "$data"
part tests suite 225
[ -s "$log" ] && [ "$(wc -c <"$log")" -gt 4000000 ] && tail -c 4000000 "$log" >"$work/log" && cp "$work/log" "$log"
"$python" -m gpu_check.summary "$out" "${parts[@]}" | tee -a "$log"
code=${PIPESTATUS[0]}
say "done, exit code $code"
exit "$code"
