#!/bin/sh
# Builds attune-check for a device: sh native/check/build.sh simt|cuda. No Node is needed; `simt` is the emulator.
set -eu
cd "$(dirname "$0")/../.."
cmake -G Ninja -S . -B "build-check/$1" -DATTUNE_DEVICE="$1" ${ATTUNE_ARCHITECTURES:+-DATTUNE_ARCHITECTURES="$ATTUNE_ARCHITECTURES"} > /dev/null
cmake --build "build-check/$1" --target attune-check -j "${JOBS:-1}"
ln -sf "$1/attune-check" "build-check/attune-check-$1"
