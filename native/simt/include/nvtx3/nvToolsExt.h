// NVTX on the emulator: with ATTUNE_SIMT_RANGES=1 a range is a line of stderr when it opens, `simt: range TEXT`.
#pragma once
int nvtxRangePushA(const char* text);  // how many were open
int nvtxRangePop();                    // how many are left open; negative where none was
