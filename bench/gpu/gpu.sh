#!/bin/sh
# Everything that needs a GPU, by one command: sh gpu.sh --out DIR [--minutes 9] [--from PART] [--device cuda|simt] [--parts FILE]
# In the pack (npm run gpu:pack) this stands beside a `node` and an `app.tar.br`, which is unpacked once. Needs sh, tar and a driver.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -f "$here/app.tar.br" ]; then
  if [ ! -f "$here/app/package.json" ]; then
    mkdir -p "$here/app"
    "$here/node" -e 'const z = require("zlib"), s = require("stream"), big = { [z.constants.BROTLI_DECODER_PARAM_LARGE_WINDOW]: 1 };
      s.pipeline(process.stdin, z.createBrotliDecompress({ params: big }), process.stdout, (error) => { if (error) throw error; });' \
      < "$here/app.tar.br" | tar -xf - -C "$here/app"
  fi
  exec "$here/node" "$here/app/bench/gpu/run.mjs" "$@"
fi
node "$here/prepare.mjs" "$@" # a clone builds what is missing
exec node "$here/run.mjs" "$@"
