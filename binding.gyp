# Plain `npm install` builds this through node-gyp. The list of sources is native/sources.json, expanded by the install script.
{
  "target_defaults": {
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
    "cflags!": ["-fno-omit-frame-pointer"],
    "cflags": ["-O3", "-Wall", "-Wextra", "-Wno-psabi", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast"],
    "cflags_cc": ["-std=c++20", "-fvisibility-inlines-hidden"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "GCC_OPTIMIZATION_LEVEL": "3",
      "OTHER_CFLAGS": ["-fno-math-errno", "-ffp-contract=fast"],
    },
  },
  "targets": [
    {
      "target_name": "attune_core",
      "type": "static_library",
      "sources": ["<!@(node scripts/install.mjs --sources core)"],
    },
    {
      "target_name": "attune",
      "dependencies": ["attune_core"],
      "sources": ["<!@(node scripts/install.mjs --sources addon)"],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags_cc": ["-fexceptions"],
      "xcode_settings": {"GCC_ENABLE_CPP_EXCEPTIONS": "YES"},
    },
  ],
}
